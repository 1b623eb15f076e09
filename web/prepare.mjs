// What the page loads, made before a build: the exported model and onnxruntime's WASM, packed, and the scenes.
// MODEL_DIR: what `ldm-course export onnx --attention` wrote. If MODEL_DIR-small exists, it is the model of ?small.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const MODEL_DIR = process.env.MODEL_DIR ?? "../build/onnx";
const PYTHON = process.env.PYTHON ?? "../.venv/bin/python";
const NETWORKS = ["text_encoder.onnx", "unet_attention.onnx", "vae_decoder.onnx", "vae_encoder.onnx"];
const WASM = "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm";

/** Pack a file into public/, unless it is there already; what model.json says of it. */
function pack(source, path) {
  const data = readFileSync(source);
  const sha256 = createHash("sha256").update(data).digest("hex");
  const url = path.replace(/(\.\w+)$/, `-${sha256.slice(0, 8)}$1.gz`);
  const target = join("public", url);
  if (!existsSync(target)) writeFileSync(target, gzipSync(data, { level: 9 }));
  return { url: `../${url}`, bytes: data.length, packed: readFileSync(target).length, sha256 };
}

function model(from, to) {
  const described = JSON.parse(readFileSync(join(from, "model.json"), "utf8"));
  const missing = NETWORKS.filter((name) => !existsSync(join(from, name)));
  if (missing.length) {
    console.error(`${from} lacks ${missing.join(", ")}: run ldm-course export onnx --attention -o ${from}`);
    process.exit(1);
  }
  mkdirSync(join("public", to), { recursive: true });
  const files = Object.fromEntries(NETWORKS.map((name) => [name, pack(join(from, name), `${to}/${name}`)]));
  files["ort.wasm"] = pack(WASM, "runtime/ort.wasm");
  writeFileSync(join("public", to, "model.json"), JSON.stringify({ ...described, files }));
}

if (!existsSync(join(MODEL_DIR, "model.json"))) {
  console.error(`No model in ${MODEL_DIR}: run ldm-course export onnx --attention -o ${MODEL_DIR}, or set MODEL_DIR`);
  process.exit(1);
}
mkdirSync("public/runtime", { recursive: true });
model(MODEL_DIR, "model");
if (existsSync(join(`${MODEL_DIR}-small`, "model.json"))) model(`${MODEL_DIR}-small`, "model-small");
execFileSync(PYTHON, ["make_scenes.py", "public/scenes"], { stdio: "inherit" });
