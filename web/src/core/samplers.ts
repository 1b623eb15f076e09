// Four ways to take one step from noise towards a latent, as ldm_course/samplers.py.

import { mix, type NoiseSchedule } from "./schedule";

/** Where the loop stands; t is -1 when all steps are done, and x0_hat is x_t then. */
export interface State {
  t: number;
  x_t: Float32Array;
  eps: Float32Array;
  x0_hat: Float32Array;
  alphaBar: number;
}

/** A step goes to the level alphaBar; `before` is the State one step earlier; `noise` draws noise of x_t's shape. */
export type Step = (now: State, alphaBar: number, before: State | null, noise: () => Float32Array) => Float32Array;

/** Song et al. 2021, eq. 12 with sigma_t = 0. */
export const ddim: Step = (now, alphaBar) => mix(Math.sqrt(alphaBar), now.x0_hat, Math.sqrt(1 - alphaBar), now.eps);

/** Ho et al. 2020, eq. 6-7, with x0_hat in place of x_0. */
export const ddpm: Step = (now, alphaBar, _before, noise) => {
  const alpha_t = now.alphaBar / alphaBar;
  const x0Weight = (Math.sqrt(alphaBar) * (1 - alpha_t)) / (1 - now.alphaBar);
  const x_tWeight = (Math.sqrt(alpha_t) * (1 - alphaBar)) / (1 - now.alphaBar);
  const variance = ((1 - alphaBar) / (1 - now.alphaBar)) * (1 - alpha_t);
  return mix(1, mix(x0Weight, now.x0_hat, x_tWeight, now.x_t), Math.sqrt(variance), noise());
};

/** Karras et al. 2022, alg. 1: Euler's method for dy = eps dsigma, y = x / sqrt(alpha_bar). */
export const euler: Step = (now, alphaBar) => {
  const change = Math.sqrt(1 / alphaBar - 1) - Math.sqrt(1 / now.alphaBar - 1);
  return mix(Math.sqrt(alphaBar / now.alphaBar), now.x_t, Math.sqrt(alphaBar) * change, now.eps);
};

/** Lu et al. 2022, alg. 2: DDIM with x_0 extrapolated from this estimate and the last one. */
export const dpmpp2m: Step = (now, alphaBar, before, noise) => {
  if (before === null || alphaBar === 1) return ddim(now, alphaBar, before, noise);
  const r = (logSnr(now.alphaBar) - logSnr(before.alphaBar)) / (logSnr(alphaBar) - logSnr(now.alphaBar));
  const d = mix(1 + 1 / (2 * r), now.x0_hat, -1 / (2 * r), before.x0_hat);
  const shrink = Math.sqrt((1 - alphaBar) / (1 - now.alphaBar));
  return mix(shrink, now.x_t, Math.sqrt(alphaBar) - Math.sqrt(now.alphaBar) * shrink, d);
};

function logSnr(alphaBar: number): number {
  return 0.5 * Math.log(alphaBar / (1 - alphaBar));
}

export const SAMPLERS = { ddim, ddpm, euler, "dpm++": dpmpp2m } satisfies Record<string, Step>;
export type Scheduler = keyof typeof SAMPLERS;

/** The level that the last step goes to: without noise, but for DDIM, which ends at the schedule's own. */
export function finalAlphaBar(schedule: NoiseSchedule, step: Step): number {
  return step === ddpm || step === euler || step === dpmpp2m ? 1 : schedule.alphaBar(-1);
}
