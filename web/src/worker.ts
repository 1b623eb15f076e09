// The model's home: it loads, generates, and decodes what the page looks at, and never keeps the page waiting.

import { composite, toPixels, toTensor } from "./core/images";
import { type Model, sample, type Task, timestepsOf } from "./core/pipelines";
import { finalAlphaBar, SAMPLERS } from "./core/samplers";
import type { FromWorker, Job, ModelFile, ToWorker } from "./messages";
import { loadModel } from "./sessions";
import { Downloads } from "./weights";

const EVERY = 150; // ms between two decoded images while the loop runs, ...
const REST = 3; // ... and so many times as long as one takes, so that the loop does not wait for them
const DRAG = 270; // ms that an image may take while a control is dragged ...
const FEWEST = { txt2img: 8, img2img: 3, inpaint: 4 }; // ... but so many steps at least

let model: Model | null = null;
let pending: Job | null = null; // the newest run, not begun yet
let current: Job | null = null;
let stopped = false; // the current run is to end at its next step
let wanted = -1; // the step whose image the page waits for
const cost = { step: 60, decode: 100 }; // ms, as measured last

function say(message: FromWorker, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

/** Let messages in: they wait while the model computes. */
function breath(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port2.onmessage = () => {
      port1.close();
      resolve();
    };
    port1.postMessage(null);
  });
}

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "look") {
    if (data.id === current?.id) wanted = data.index;
    return;
  }
  pending = data.job;
  if (current && !(current.drag && data.job.drag)) stopped = true;
  if (model && !current) void work(model);
};

async function work(model: Model): Promise<void> {
  while (pending) {
    current = pending;
    pending = null;
    stopped = false;
    try {
      await generate(model, current);
    } catch (error) {
      say({ type: "failed", message: error instanceof Error ? error.message : String(error) });
    }
  }
  current = null;
}

async function generate(model: Model, job: Job): Promise<void> {
  const began = performance.now();
  const task = taskOf(job);
  const steps = job.drag ? stepsInTime(job) : job.steps;
  const timesteps = timestepsOf(model.schedule, task, steps);
  const levels = timesteps.map((t) => model.schedule.alphaBar(t));
  levels.push(finalAlphaBar(model.schedule, SAMPLERS[job.scheduler]));
  say({ type: "begin", id: job.id, steps, timesteps, levels });

  async function decode(index: number): Promise<void> {
    const start = performance.now();
    let pixels = toPixels(await model.decode(estimates[index]));
    if (job.task === "inpaint" && job.composite) pixels = composite(pixels, job.image!, job.mask!);
    cost.decode = performance.now() - start;
    decoded.add(index);
    say({ type: "pixels", id: job.id, index, pixels }, [pixels.buffer]);
  }

  const estimates: Float32Array[] = [];
  const decoded = new Set<number>();
  let shown = performance.now();
  let before = shown;
  for await (const { t, alphaBar, x_t, eps, x0_hat, attention } of sample(model, task, { ...job, steps })) {
    if (estimates.length) cost.step = performance.now() - before;
    const index = estimates.push(x0_hat) - 1;
    say({ type: "step", id: job.id, index, view: { t, alphaBar, x_t, eps, x0_hat, attention } });
    await breath();
    if (stopped) return;
    if (t === -1 || (!job.drag && performance.now() - shown > Math.max(EVERY, REST * cost.decode))) {
      await decode(index);
      shown = performance.now();
    }
    before = performance.now();
  }
  say({ type: "done", id: job.id, ms: performance.now() - began });

  while (!job.drag && decoded.size < estimates.length) {
    await breath();
    if (pending) return;
    const next = wanted in estimates && !decoded.has(wanted) ? wanted : estimates.findIndex((_, i) => !decoded.has(i));
    await decode(next);
  }
}

function taskOf({ task, image, mask, strength }: Job): Task {
  if (task === "txt2img") return { name: task };
  if (task === "img2img") return { name: task, image: toTensor(image!), strength };
  return { name: task, image: toTensor(image!), strength, mask: mask! };
}

/** The number of steps that fits the time of one image, the job's own at most. */
function stepsInTime({ task, steps, strength }: Job): number {
  const share = task === "txt2img" ? 1 : Math.max(strength, 0.05);
  const done = Math.max(FEWEST[task], Math.floor((DRAG - cost.decode) / cost.step));
  return Math.min(steps, Math.ceil(done / share));
}

async function load(): Promise<void> {
  const began = performance.now();
  const base = new URL(`../${self.name}/model.json`, self.location.href); // the page names the worker after the model
  const response = await fetch(base);
  if (!response.ok) throw new Error(`The model is not here (${response.status} for ${base.pathname}).`);
  const file = (await response.json()) as ModelFile;
  say({ type: "model", model: file });

  const downloads = new Downloads(base.href, file.files, (loaded, total, cached) =>
    say({ type: "loading", loaded, total, cached }),
  );
  model = await loadModel(file, downloads);
  say({ type: "ready", ms: performance.now() - began });
  void downloads.tidy();
  void work(model);
}

load().catch((error: unknown) => {
  say({ type: "failed", message: error instanceof Error ? error.message : String(error) });
});
