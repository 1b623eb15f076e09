// The noise schedule, as ldm_course/schedule.py: alpha_bar_t is the share of the signal's variance left at timestep t.

export interface ScheduleFile {
  alpha_bars: number[];
  final_alpha_bar_ddim: number;
  steps_offset: number;
}

export class NoiseSchedule {
  constructor(private readonly file: ScheduleFile) {}

  /** alpha_bar_t; for t = -1 the level after DDIM's last step. */
  alphaBar(t: number): number {
    return t === -1 ? this.file.final_alpha_bar_ddim : this.file.alpha_bars[t];
  }

  /** The timesteps that n steps visit, from high to low, with "leading" spacing. */
  timesteps(n: number): number[] {
    const { alpha_bars: all, steps_offset: offset } = this.file;
    const stride = Math.floor(all.length / n);
    return Array.from({ length: n }, (_, i) => (n - 1 - i) * stride + offset);
  }

  /** x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, eq. 4). */
  addNoise(x0: Float32Array, noise: Float32Array, t: number): Float32Array {
    return mix(Math.sqrt(this.alphaBar(t)), x0, Math.sqrt(1 - this.alphaBar(t)), noise);
  }

  /** x0_hat: what the noise predicted in x_t says of x_0 (eq. 15). */
  x0Hat(eps: Float32Array, x_t: Float32Array, t: number): Float32Array {
    const signal = Math.sqrt(this.alphaBar(t));
    const sigma = Math.sqrt(1 - this.alphaBar(t));
    return mix(1 / signal, x_t, -sigma / signal, eps);
  }
}

/** a x + b y. */
export function mix(a: number, x: Float32Array, b: number, y: Float32Array): Float32Array {
  return x.map((value, i) => a * value + b * y[i]);
}

/** The timesteps that are left if an image is noised only part of the way: the last `strength` of them. */
export function strengthTimesteps(timesteps: number[], strength: number): number[] {
  return timesteps.slice(timesteps.length - Math.floor(timesteps.length * strength));
}
