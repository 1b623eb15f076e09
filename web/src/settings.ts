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
  second: string; // another prompt, mixed with the first; "" for none
  mix: number; // the second prompt's share
}

export type AllSettings = Record<TaskName, Settings>;

export const TASKS: TaskName[] = ["txt2img", "img2img", "inpaint"];
export const LARGEST_SEED = 2 ** 31 - 1;
const LIMITS = { seed: [0, LARGEST_SEED], steps: [1, 100], guidance: [0, 15], strength: [0, 1], mix: [0, 1] } as const;

export function firstSettings(): AllSettings {
  const all = { guidance: 4, scheduler: "ddim" as const, strength: 1, second: "", mix: 0.5 };
  return {
    txt2img: { ...all, prompt: "a dog with glasses", seed: 12, steps: 20 },
    img2img: { ...all, prompt: "a dog with glasses", seed: 3, steps: 8, strength: 0.7 },
    inpaint: { ...all, prompt: "a brown dog running", seed: 0, steps: 20 },
  };
}

/** The settings of a task as the end of an address. */
export function toLink(task: TaskName, settings: Settings): string {
  const { strength, second, mix, ...rest } = settings;
  const own = task !== "txt2img" ? { strength } : second ? { second, mix } : {};
  const said = { task, ...rest, ...own };
  return `#${new URLSearchParams(Object.entries(said).map(([name, value]) => [name, String(value)]))}`;
}

/** Put what a link says into the settings, and return its task; what makes no sense is left as it was. */
export function fromLink(hash: string, all: AllSettings): TaskName {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const task = TASKS.find((name) => name === said.get("task")) ?? "txt2img";
  const settings = all[task];
  settings.prompt = said.get("prompt")?.slice(0, 1000) ?? settings.prompt;
  if (task === "txt2img") settings.second = said.get("second")?.slice(0, 1000) ?? settings.second;
  const scheduler = said.get("scheduler");
  if (scheduler !== null && Object.hasOwn(SAMPLERS, scheduler)) settings.scheduler = scheduler as Scheduler;
  for (const name of ["seed", "steps", "guidance", "strength", "mix"] as const) {
    const [least, most] = LIMITS[name];
    const value = Number(said.get(name) || NaN);
    const whole = name === "seed" || name === "steps";
    if (value >= least && value <= most && (!whole || Number.isInteger(value))) settings[name] = value;
  }
  return task;
}
