// Latents and attention maps as pixels.

import { imageData, pen } from "./dom";

const LOW = [94, 60, 153]; // purple at -3, white at 0, orange at 3, as in the notebooks
const MIDDLE = [247, 247, 247];
const HIGH = [230, 97, 1];

/** A latent (4, h, h) as four tiles with a gap, one pixel for each number. */
export function drawLatent(canvas: HTMLCanvasElement, latent: Float32Array): void {
  const h = Math.sqrt(latent.length / 4);
  const side = 2 * h + 1;
  const pixels = new Uint8ClampedArray(4 * side * side);
  latent.forEach((value, i) => {
    const [channel, y, x] = [Math.floor(i / (h * h)), Math.floor(i / h) % h, i % h];
    const at = 4 * (((channel >> 1) * (h + 1) + y) * side + (channel & 1) * (h + 1) + x);
    const share = Math.min(Math.abs(value) / 3, 1);
    const end = value < 0 ? LOW : HIGH;
    for (let c = 0; c < 3; c++) pixels[at + c] = MIDDLE[c] + share * (end[c] - MIDDLE[c]);
    pixels[at + 3] = 255;
  });
  canvas.width = canvas.height = side;
  pen(canvas).putImageData(imageData(pixels, side), 0, 0);
}

/** A token's attention (values in 0 ... 1): opaque where it is high, in one colour. */
export function drawHeat(canvas: HTMLCanvasElement, map: Float32Array, colour: [number, number, number]): void {
  draw(canvas, map, colour, (value) => value);
}

/** The same as a veil over the image: what the token does not act on lies in the dark. */
export function drawVeil(canvas: HTMLCanvasElement, map: Float32Array): void {
  draw(canvas, map, [8, 12, 20], (value) => 0.86 * (1 - value));
}

function draw(
  canvas: HTMLCanvasElement,
  map: Float32Array,
  [red, green, blue]: [number, number, number],
  alpha: (value: number) => number,
): void {
  const side = Math.sqrt(map.length);
  const pixels = new Uint8ClampedArray(4 * map.length);
  map.forEach((value, i) => pixels.set([red, green, blue, 255 * alpha(Math.min(1, value))], 4 * i));
  canvas.width = canvas.height = side;
  pen(canvas).putImageData(imageData(pixels, side), 0, 0);
}
