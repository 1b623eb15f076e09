// What the reader sets for each task, and links that carry it: #task=img2img&prompt=...&seed=3&strength=0.5

import { SAMPLERS, type Scheduler } from "./core/samplers";
import type { TaskName } from "./messages";

export interface Settings {
  prompt: string;
  seed: number;
  steps: number;
  guidance: number;
  scheduler: Scheduler;
  strength: number;
}

export type AllSettings = Record<TaskName, Settings>;

export const TASKS: TaskName[] = ["txt2img", "img2img", "inpaint"];
export const LARGEST_SEED = 2 ** 31 - 1;
const LIMITS = { seed: [0, LARGEST_SEED], steps: [1, 100], guidance: [0, 15], strength: [0, 1] } as const;

export function firstSettings(): AllSettings {
  return {
    txt2img: { prompt: "a dog with glasses", seed: 12, steps: 20, guidance: 4, scheduler: "ddim", strength: 1 },
    img2img: { prompt: "a dog with glasses", seed: 3, steps: 8, guidance: 4, scheduler: "ddim", strength: 0.7 },
    inpaint: { prompt: "a brown dog running", seed: 0, steps: 20, guidance: 4, scheduler: "ddim", strength: 1 },
  };
}

/** The settings of a task as the end of an address. */
export function toLink(task: TaskName, settings: Settings): string {
  const { strength, ...rest } = settings;
  const said = { task, ...rest, ...(task === "txt2img" ? {} : { strength }) };
  return `#${new URLSearchParams(Object.entries(said).map(([name, value]) => [name, String(value)]))}`;
}

/** Put what a link says into the settings, and return its task; what makes no sense is left as it was. */
export function fromLink(hash: string, all: AllSettings): TaskName {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const task = TASKS.find((name) => name === said.get("task")) ?? "txt2img";
  const settings = all[task];
  settings.prompt = said.get("prompt")?.slice(0, 1000) ?? settings.prompt;
  const scheduler = said.get("scheduler");
  if (scheduler !== null && Object.hasOwn(SAMPLERS, scheduler)) settings.scheduler = scheduler as Scheduler;
  for (const name of ["seed", "steps", "guidance", "strength"] as const) {
    const [least, most] = LIMITS[name];
    const value = Number(said.get(name) || NaN);
    const whole = name === "seed" || name === "steps";
    if (value >= least && value <= most && (!whole || Number.isInteger(value))) settings[name] = value;
  }
  return task;
}
