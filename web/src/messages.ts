// What the page and its worker say to each other. Each run has an id; a newer run ends the older one between steps.

import type { ScheduleFile } from "./core/schedule";
import type { TokenizerFile } from "./core/tokenizer";
import type { Settings } from "./settings";

/** model.json, as `ldm-course export onnx` and prepare.mjs write it. */
export interface ModelFile {
  format: number;
  scaling_factor: number;
  latent_channels: number;
  downscale: number;
  native_size: number;
  context: [number, number];
  schedule: ScheduleFile;
  tokenizer: TokenizerFile;
  files: Record<string, { url: string; bytes: number; packed: number; sha256: string }>;
}

export type TaskName = "txt2img" | "img2img" | "inpaint";

export interface Job extends Settings {
  id: number;
  task: TaskName;
  composite: boolean;
  image: Uint8ClampedArray | null; // RGBA, native_size x native_size
  mask: Uint8ClampedArray | null; // one byte a pixel, 255 where to repaint
  drag: boolean; // a control is being moved: as many steps as time allows, and the running one may finish
}

export type ToWorker =
  | { type: "run"; job: Job }
  | { type: "look"; id: number; index: number }; // decode this step of the run next

export type FromWorker =
  | { type: "model"; model: ModelFile }
  | { type: "loading"; loaded: number; total: number; cached: boolean }
  | { type: "ready"; ms: number }
  | { type: "begin"; id: number; steps: number; timesteps: number[]; levels: number[] }
  | { type: "step"; id: number; index: number; view: StepView }
  | { type: "pixels"; id: number; index: number; pixels: Uint8ClampedArray }
  | { type: "done"; id: number; ms: number }
  | { type: "failed"; message: string };

/** One State of the loop; `attention` is (tokens, h, w), absent at the end. */
export interface StepView {
  t: number;
  alphaBar: number;
  x_t: Float32Array;
  eps: Float32Array;
  x0_hat: Float32Array;
  attention?: Float32Array;
}
