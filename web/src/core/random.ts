// torch's random numbers by seed: MT19937, and Box-Muller as torch's CPU generator does it.

/** The generator that torch.Generator().manual_seed(seed) is (Matsumoto and Nishimura 1998). */
export class Generator {
  private readonly state = new Uint32Array(624);
  private at = 624;
  private spare: number | null = null; // the second of two numbers that a short draw made

  /** seed: a whole number from 0; like torch's CPU generator, only its low 32 bits count. */
  constructor(seed: number) {
    this.state[0] = seed % 2 ** 32;
    for (let i = 1; i < 624; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
  }

  /** The next 32 bits. */
  private bits(): number {
    if (this.at === 624) this.twist();
    let y = this.state[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  private twist(): void {
    const s = this.state;
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }

  /** n numbers ~ N(0, 1), as torch.randn(n, generator=...) in float32. */
  randn(n: number): Float32Array {
    return n < 16 ? this.few(n) : this.many(n);
  }

  /** 16 numbers and more: uniform numbers of 24 bits, in blocks of 8 radii and 8 angles. */
  private many(n: number): Float32Array {
    const uniform = () => (this.bits() & 0xffffff) / 2 ** 24;
    const out = Float32Array.from({ length: n }, uniform);
    for (let start = 0; start + 16 <= n; start += 16) turn(out, start);
    if (n % 16) {
      // the last 16 are drawn anew, and overlap the block before
      for (let i = n - 16; i < n; i++) out[i] = uniform();
      turn(out, n - 16);
    }
    return out;
  }

  /** Fewer than 16 numbers: one by one in float64, in pairs, of which the second is kept for the next draw. */
  private few(n: number): Float32Array {
    const out = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      if (this.spare !== null) {
        out[i] = this.spare;
        this.spare = null;
        continue;
      }
      const u1 = this.double();
      const u2 = this.double();
      const radius = Math.sqrt(-2 * Math.log1p(-u2));
      this.spare = radius * Math.sin(2 * Math.PI * u1);
      out[i] = radius * Math.cos(2 * Math.PI * u1);
    }
    return out;
  }

  /** A uniform number of 53 bits, the high word drawn first. */
  private double(): number {
    const high = this.bits() % 2 ** 21;
    const low = this.bits();
    return (high * 2 ** 32 + low) / 2 ** 53;
  }
}

const TWO_PI = Math.fround(2 * Math.PI); // torch's angles are float32: an error of 1e-6 if ours were not

/** Box and Muller 1958, in place: radii from the first 8 uniform numbers, angles from the next 8. */
function turn(x: Float32Array, start: number): void {
  for (let i = start; i < start + 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - x[i]));
    const angle = Math.fround(TWO_PI * x[i + 8]);
    x[i] = radius * Math.cos(angle);
    x[i + 8] = radius * Math.sin(angle);
  }
}
