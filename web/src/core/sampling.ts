// Guidance, and the one loop that every task runs, as ldm_course/sampling.py.

import { finalAlphaBar, type State, type Step } from "./samplers";
import type { NoiseSchedule } from "./schedule";

/** What a UNet predicts for b latents one after the other; `attention` is (b, tokens, h, w), if it gives it. */
export interface Prediction {
  eps: Float32Array;
  attention?: Float32Array;
}

/** x is (b, 4, h, w) and context (b, 77, d), each in one array. */
export type UNet = (x: Float32Array, t: number, context: Float32Array, b: number) => Promise<Prediction>;

/** A State, and where the tokens of the prompt act on it: (tokens, h, w). */
export interface Look extends State {
  attention?: Float32Array;
}

export interface Loop {
  unet: UNet;
  schedule: NoiseSchedule;
  context: Float32Array;
  negativeContext: Float32Array | null; // null if guidance is 1
  guidance: number;
  step: Step;
  noise: () => Float32Array;
  afterStep?: (x: Float32Array, tPrev: number) => Float32Array;
}

/** eps_uncond + guidance (eps_cond - eps_uncond) (Ho and Salimans 2022, eq. 6, with guidance = 1 + w). */
export function guide(uncond: Float32Array, cond: Float32Array, guidance: number): Float32Array {
  return uncond.map((value, i) => value + guidance * (cond[i] - value));
}

/** One State before each step, and a last one, t = -1, with the result. */
export async function* denoise(loop: Loop, x_T: Float32Array, timesteps: number[]): AsyncGenerator<Look> {
  const { schedule, step, negativeContext, context } = loop;
  const guided = negativeContext !== null && loop.guidance !== 1;
  const both = guided ? joined(negativeContext, context) : context;
  const levels = [...timesteps.map((t) => schedule.alphaBar(t)), finalAlphaBar(schedule, step)];
  const n = x_T.length;
  let x_t = x_T;
  let eps: Float32Array = new Float32Array(n);
  let before: State | null = null;
  for (const [i, t] of timesteps.entries()) {
    const prediction = await loop.unet(guided ? joined(x_t, x_t) : x_t, t, both, guided ? 2 : 1);
    eps = guided
      ? guide(prediction.eps.subarray(0, n), prediction.eps.subarray(n), loop.guidance)
      : prediction.eps;
    const maps = prediction.attention;
    const attention = maps && guided ? maps.slice(maps.length / 2) : maps;
    const x0_hat = schedule.x0Hat(eps, x_t, t);
    const now: Look = { t, x_t, eps, x0_hat, alphaBar: levels[i], attention };
    yield now;

    x_t = step(now, levels[i + 1], before, loop.noise);
    if (loop.afterStep) x_t = loop.afterStep(x_t, timesteps[i + 1] ?? -1);
    before = now;
  }
  yield { t: -1, x_t, eps, x0_hat: x_t, alphaBar: levels[levels.length - 1] };
}

function joined(a: Float32Array, b: Float32Array): Float32Array {
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
