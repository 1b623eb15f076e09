// The page's core against Python's: tests/cases.json comes from tests/make_cases.py.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { composite, latentMask, toPixels, toTensor } from "../src/core/images";
import { type Model, sample, type Task } from "../src/core/pipelines";
import { Generator } from "../src/core/random";
import type { Scheduler } from "../src/core/samplers";
import { NoiseSchedule, type ScheduleFile } from "../src/core/schedule";
import { Tokenizer, type TokenizerFile } from "../src/core/tokenizer";

interface Cases {
  tokenizer: TokenizerFile;
  schedule: ScheduleFile;
  texts: { text: string; ids: number[]; unknown: string[] }[];
  noise: { seed: number; sizes: number[]; drawn: number[][] }[];
  timesteps: Record<string, number[]>;
  image: number[];
  tensor: number[];
  mask: number[];
  latent_mask: number[];
  loops: Loop[];
  composite: Record<"a" | "b" | "mask" | "composite", number[]>;
}

interface Loop {
  task: Task["name"];
  strength: number;
  seed: number;
  scheduler: Scheduler;
  guidance_scale: number;
  num_inference_steps: number;
  z: number[];
}

const cases = JSON.parse(readFileSync(new URL("cases.json", import.meta.url), "utf8")) as Cases;
const schedule = new NoiseSchedule(cases.schedule);

function farthest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

const rgba = (rgb: number[]) =>
  Uint8ClampedArray.from({ length: (rgb.length / 3) * 4 }, (_, i) => (i % 4 === 3 ? 255 : rgb[(i >> 2) * 3 + (i % 4)]));

test("a seed gives torch's noise, draw after draw", () => {
  for (const { seed, sizes, drawn } of cases.noise) {
    const generator = new Generator(seed);
    sizes.forEach((n, i) => expect(farthest(generator.randn(n), drawn[i])).toBeLessThan(1e-6));
  }
});

test("token ids are Python's", () => {
  const tokenizer = new Tokenizer(cases.tokenizer);
  const wrong = cases.texts.filter(({ text, ids }) => JSON.stringify(tokenizer.ids(text)) !== JSON.stringify(ids));
  expect(wrong.map(({ text }) => text)).toEqual([]);
});

test("words that the model never met are Python's", () => {
  const tokenizer = new Tokenizer(cases.tokenizer);
  for (const { text, unknown } of cases.texts) expect(tokenizer.unknownWords(text), text).toEqual(unknown);
  expect(tokenizer.unknownWords("a purple dog")).toEqual(["purple"]);
});

test("a token says which letters it stands for", () => {
  const tokens = new Tokenizer(cases.tokenizer).tokens("a Giraffe, é");
  expect(tokens.map((token) => token.text).join("")).toBe("agiraffe,··");
  expect(tokens.filter((token) => token.endsWord)).toHaveLength(4);
});

test("timesteps are Python's", () => {
  for (const [n, steps] of Object.entries(cases.timesteps)) expect(schedule.timesteps(Number(n))).toEqual(steps);
});

test("every task and sampler ends at Python's latent", async () => {
  const unet: Model["unet"] = async (x, t, context, b) => {
    const eps = x.map((value, i) => {
      const text = context[Math.floor((i * b) / x.length) * (context.length / b)];
      return 0.9 * Math.tanh(value) + text + 0.0003 * t;
    });
    return { eps };
  };
  const encode: Model["encode"] = async (image, noise) => {
    const z = new Float32Array(1024);
    for (const [channel, from] of [0, 1, 2, 0].entries()) {
      for (let i = 0; i < 16384; i++) {
        const cell = (i >> 10) * 16 + ((i & 127) >> 3);
        z[channel * 256 + cell] += image[from * 16384 + i] / 64;
      }
    }
    return z.map((value, i) => value + 0.1 * noise[i]);
  };
  const embed: Model["embed"] = async (prompt) => new Float32Array(77 * 128).fill(prompt.length / 100);
  const decode: Model["decode"] = async (z) => z;
  const model: Model = { schedule, channels: 4, cells: 16, downscale: 8, unet, embed, encode, decode };

  const image = toTensor(rgba(cases.image));
  const mask = new Uint8ClampedArray(16384);
  for (let y = 0; y < 128; y++) {
    for (let x = 0; x < 128; x++) {
      if (x >= 10 && x < 120 && y >= 72) mask[128 * y + x] = 255;
      if (x < 64 && y < 64) mask[128 * y + x] = 127;
    }
  }
  for (const { task: name, strength, seed, scheduler, guidance_scale, num_inference_steps, z } of cases.loops) {
    const task: Task = name === "txt2img" ? { name } : name === "img2img" ? { name, image, strength } : { name, image, strength, mask };
    const options = { prompt: "a dog", seed, scheduler, guidance: guidance_scale, steps: num_inference_steps };
    let last = new Float32Array();
    for await (const state of sample(model, task, options)) last = new Float32Array(state.x_t);
    const largest = Math.max(...z.map(Math.abs));
    expect(farthest(last, z) / largest, `${name} ${scheduler} ${strength}`).toBeLessThan(2e-5);
  }
});

test("pixels to numbers and back are Python's", () => {
  const pixels = rgba(cases.image);
  const x = toTensor(pixels);
  expect(farthest(Array.from(x).filter((_, i) => i % 97 === 0), cases.tensor)).toBeLessThan(1e-6);
  expect(toPixels(x)).toEqual(pixels);
});

test("a mask shrinks to the latent's as in Python", () => {
  expect(Array.from(latentMask(new Uint8ClampedArray(cases.mask), 128, 8))).toEqual(cases.latent_mask);
});

test("the composite is PIL's", () => {
  const { a, b, mask, composite: both } = cases.composite;
  expect(composite(rgba(a), rgba(b), new Uint8ClampedArray(mask))).toEqual(rgba(both));
});
