// Pixels to the VAE's numbers and back, masks of latents, and the composite, as ldm_course/images.py.

/** RGBA pixels (h, w, 4) to (3, h, w) in [-1, 1]; the pixels must be opaque. */
export function toTensor(rgba: Uint8ClampedArray): Float32Array {
  const n = rgba.length / 4;
  const x = new Float32Array(3 * n);
  for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) x[c * n + i] = (2 * rgba[4 * i + c]) / 255 - 1;
  return x;
}

/** (3, h, w) in [-1, 1], clamped to it, to opaque RGBA pixels (h, w, 4). */
export function toPixels(x: Float32Array): Uint8ClampedArray {
  const n = x.length / 3;
  const rgba = new Uint8ClampedArray(4 * n).fill(255);
  for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) rgba[4 * i + c] = 255 * (x[c * n + i] / 2 + 0.5);
  return rgba;
}

/** A mask (side x side, 0 ... 255) to one of the latent: 1 where to repaint. The top left pixel of a cell decides. */
export function latentMask(mask: Uint8ClampedArray, side: number, downscale: number): Float32Array {
  const cells = Math.floor(side / downscale);
  return Float32Array.from({ length: cells * cells }, (_, i) => {
    const y = Math.floor(i / cells) * downscale;
    return mask[y * side + (i % cells) * downscale] >= 127.5 ? 1 : 0;
  });
}

/** The repainted image where the mask is white, the original where it is black, in between softly; PIL's rounding. */
export function composite(
  repainted: Uint8ClampedArray,
  original: Uint8ClampedArray,
  mask: Uint8ClampedArray,
): Uint8ClampedArray {
  return repainted.map((value, i) => {
    const m = mask[i >> 2];
    const sum = value * m + original[i] * (255 - m) + 128;
    return ((sum >> 8) + sum) >> 8;
  });
}
