// The three tasks, each around the one loop: what they prepare for it, as ldm_course/pipelines.py.

import { latentMask } from "./images";
import { Generator } from "./random";
import { SAMPLERS, type Scheduler } from "./samplers";
import { denoise, type Look, type UNet } from "./sampling";
import { mix, type NoiseSchedule, strengthTimesteps } from "./schedule";

/** The parts of the model. Latents of `encode` and `decode` are scaled, as the UNet sees them. */
export interface Model {
  schedule: NoiseSchedule;
  channels: number;
  cells: number; // height and width of a latent
  downscale: number; // pixels of a cell
  unet: UNet;
  embed: (prompt: string) => Promise<Float32Array>;
  encode: (image: Float32Array, posteriorNoise: Float32Array) => Promise<Float32Array>;
  decode: (z: Float32Array) => Promise<Float32Array>;
}

export interface Options {
  prompt: string;
  second?: string; // another prompt, whose text vectors are mixed in
  mix?: number; // their share, 0 to 1
  seed: number;
  steps: number;
  guidance: number;
  scheduler: Scheduler;
}

export type Task =
  | { name: "txt2img" }
  | { name: "img2img"; image: Float32Array; strength: number }
  | { name: "inpaint"; image: Float32Array; strength: number; mask: Uint8ClampedArray };

/** The timesteps that a task visits. */
export function timestepsOf(schedule: NoiseSchedule, task: Task, steps: number): number[] {
  const every = schedule.timesteps(steps);
  return task.name === "txt2img" ? every : strengthTimesteps(every, task.strength);
}

/** Run a task: the States of its loop, the last of which holds the finished latent. */
export async function* sample(model: Model, task: Task, options: Options): AsyncGenerator<Look> {
  const { schedule } = model;
  const generator = new Generator(options.seed);
  const size = model.channels * model.cells ** 2;
  const noise = () => generator.randn(size);
  const timesteps = timestepsOf(schedule, task, options.steps);

  const { second = "", mix: share = 0 } = options;
  const first = await model.embed(options.prompt);
  const context = second ? mix(1 - share, first, share, await model.embed(second)) : first;
  const negativeContext = options.guidance === 1 ? null : await model.embed("");
  let x_start: Float32Array;
  let afterStep: ((x: Float32Array, tPrev: number) => Float32Array) | undefined;
  if (task.name === "txt2img") {
    x_start = noise();
  } else {
    const z = await model.encode(task.image, noise()); // the posterior's noise first, then the loop's
    const known = noise();
    x_start = timesteps.length ? schedule.addNoise(z, known, timesteps[0]) : z;
    if (task.name === "inpaint") {
      if (task.strength === 1) x_start = known;
      const mask = latentMask(task.mask, model.cells * model.downscale, model.downscale);
      afterStep = (x, tPrev) => keepKnownRegion(x, z, known, mask, tPrev === -1 ? 1 : schedule.alphaBar(tPrev));
    }
  }
  const step = SAMPLERS[options.scheduler];
  const loop = { unet: model.unet, schedule, context, negativeContext, guidance: options.guidance, step, noise };
  yield* denoise({ ...loop, afterStep }, x_start, timesteps);
}

/** x where the mask is 1, and where it is 0 the known latent z at x's noise level (Lugmayr et al. 2022, eq. 8). */
export function keepKnownRegion(
  x: Float32Array,
  z: Float32Array,
  noise: Float32Array,
  mask: Float32Array,
  alphaBar: number,
): Float32Array {
  const known = mix(Math.sqrt(alphaBar), z, Math.sqrt(1 - alphaBar), noise);
  return x.map((value, i) => (mask[i % mask.length] ? value : known[i]));
}
