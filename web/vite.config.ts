import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

/** onnxruntime's WASM goes into public/ packed (prepare.mjs); Vite would add a second copy, three times as large. */
const oneRuntime: Plugin = {
  name: "one-runtime",
  generateBundle(_options, bundle) {
    for (const name of Object.keys(bundle)) if (name.endsWith(".wasm")) delete bundle[name];
  },
};

/** sw.js, which knows the names of all files that the page itself consists of. */
const serviceWorker: Plugin = {
  name: "service-worker",
  generateBundle(_options, bundle) {
    const { scenes } = JSON.parse(readFileSync("public/scenes/scenes.json", "utf8")) as { scenes: { name: string }[] };
    const pictures = scenes.map(({ name }) => `scenes/${name}.png`);
    const files = ["./", ...Object.keys(bundle), "model/model.json", "scenes/scenes.json", ...pictures];
    const version = createHash("sha256").update(files.join()).digest("hex").slice(0, 12);
    const source = readFileSync("src/sw.js", "utf8")
      .replace('"VERSION"', JSON.stringify(version))
      .replace("[/* FILES */]", JSON.stringify(files.filter((name) => !name.endsWith(".html"))));
    this.emitFile({ type: "asset", fileName: "sw.js", source });
  },
};

export default defineConfig({
  base: "./",
  plugins: [serviceWorker],
  worker: { format: "es", plugins: () => [oneRuntime] },
  build: { target: "es2022" },
});
