// The model: onnxruntime's sessions behind the core's interface.

import * as ort from "onnxruntime-web/wasm";
import type { Model } from "./core/pipelines";
import { mix, NoiseSchedule } from "./core/schedule";
import { Tokenizer } from "./core/tokenizer";
import type { ModelFile } from "./messages";
import type { Downloads } from "./weights";

const KEPT = 64; // contexts of the last prompts

export async function loadModel(file: ModelFile, downloads: Downloads): Promise<Model> {
  const [wasm, text, unet, decoder] = await downloads.get([
    "ort.wasm",
    "text_encoder.onnx",
    "unet_attention.onnx",
    "vae_decoder.onnx",
  ]);
  ort.env.wasm.numThreads = 1; // more need headers that a static page does not have
  ort.env.wasm.wasmBinary = wasm.buffer;
  const open = (data: Uint8Array) => ort.InferenceSession.create(data, { executionProviders: ["wasm"] });
  const textEncoder = await open(text);
  const unetSession = await open(unet);
  const vaeDecoder = await open(decoder);
  const encoder = downloads.get(["vae_encoder.onnx"]); // not waited for: text to image does without
  encoder.catch(() => {}); // who needs it will hear of it
  let vaeEncoder: Promise<ort.InferenceSession> | null = null;

  const tokenizer = new Tokenizer(file.tokenizer);
  const [tokens, width] = file.context;
  const side = file.native_size;
  const cells = side / file.downscale;
  const latent = (b: number) => [b, file.latent_channels, cells, cells];

  const contexts = new Map<string, Float32Array>();
  async function embed(prompt: string): Promise<Float32Array> {
    const kept = contexts.get(prompt);
    if (kept) return kept;
    const ids = BigInt64Array.from(tokenizer.ids(prompt), BigInt);
    const { context } = await textEncoder.run({ input_ids: new ort.Tensor("int64", ids, [1, tokens]) });
    if (contexts.size > KEPT) contexts.clear();
    contexts.set(prompt, context.data as Float32Array);
    return context.data as Float32Array;
  }

  let encoded: { image: Float32Array; mean: Float32Array; std: Float32Array } | null = null;
  async function encode(image: Float32Array, posteriorNoise: Float32Array): Promise<Float32Array> {
    if (!encoded || encoded.image.some((value, i) => value !== image[i])) {
      vaeEncoder ??= encoder.then(([data]) => open(data));
      const { mean, logvar } = await (await vaeEncoder).run({ image: new ort.Tensor(image, [1, 3, side, side]) });
      const std = (logvar.data as Float32Array).map((value) => Math.exp(0.5 * value));
      encoded = { image, mean: mean.data as Float32Array, std };
    }
    const { mean, std } = encoded;
    const sampled = mean.map((value, i) => value + std[i] * posteriorNoise[i]);
    return mix(file.scaling_factor, sampled, 0, sampled);
  }

  return {
    schedule: new NoiseSchedule(file.schedule),
    channels: file.latent_channels,
    cells,
    downscale: file.downscale,
    async unet(x, t, context, b) {
      const { eps, attention } = await unetSession.run({
        sample: new ort.Tensor(x, latent(b)),
        timestep: new ort.Tensor(new Float32Array([t]), [1]),
        encoder_hidden_states: new ort.Tensor(context, [b, tokens, width]),
      });
      return { eps: eps.data as Float32Array, attention: attention.data as Float32Array };
    },
    embed,
    encode,
    async decode(z) {
      const unscaled = z.map((value) => value / file.scaling_factor);
      const { image } = await vaeDecoder.run({ latent: new ort.Tensor(unscaled, latent(1)) });
      return image.data as Float32Array;
    },
  };
}
