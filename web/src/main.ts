// The page: what the reader sets, what is asked of the worker, and what is shown of its answers.

import { Client, type Run } from "./client";
import { Generator } from "./core/random";
import type { Scheduler } from "./core/samplers";
import { Tokenizer } from "./core/tokenizer";
import { byId, button, imageData, pen, save } from "./dom";
import { drawLatent } from "./drawing";
import { MaskTools } from "./mask";
import type { Job, TaskName } from "./messages";
import { pythonCall } from "./python";
import { Scrubber } from "./scrubber";
import { firstSettings, fromLink, LARGEST_SEED, TASKS, toLink } from "./settings";
import { type Source, SourcePanel } from "./source";
import { Tokens } from "./tokens";
import { Tour } from "./tour";

const SIDE = 128;
const TYPING = 350; // ms without a key until the image follows the text
const REST = 500; // ms for which a slider is held still until all steps are done
const SCHEDULERS = { ddim: "DDIM", ddpm: "DDPM", euler: "Euler", "dpm++": "DPM-Solver++" };
const SUGGESTIONS = [
  "a dog with glasses",
  "a white cat with a hat",
  "an orange bear running in the snow",
  "a pink pig with headphones",
  "a black rabbit with a crown",
  "a blue elephant on the beach",
];
const CROSSED = {
  prompt: "a plain brown dog sitting on the beach",
  second: "a plain brown pig sitting on the beach",
  mix: 0.5,
};

const settings = firstSettings();
const machine = byId("machine", HTMLDivElement);
const frame = byId("frame", HTMLDivElement);
const image = byId("image", HTMLCanvasElement);
const prompt = byId("prompt", HTMLInputElement);
const second = byId("second", HTMLInputElement);
const seed = byId("seed", HTMLInputElement);
const error = byId("error", HTMLParagraphElement);
const sliders = {
  steps: byId("steps", HTMLInputElement),
  guidance: byId("guidance", HTMLInputElement),
  strength: byId("strength", HTMLInputElement),
  mix: byId("mix", HTMLInputElement),
};
const SLIDERS = Object.keys(sliders) as (keyof typeof sliders)[];

let task: TaskName = "txt2img";
let tokenizer: Tokenizer | null = null;
let shown: Run | null = null; // the run on the page
let at = 0; // the step of it in view
let follow = true; // the view goes on with the loop
let drawn = 0; // images so far
let asks = 0; // runs that were asked for; from the second on the address says what is on the page
let maskFor: Source | null = null; // the source that the mask was offered for

const scrubber = new Scrubber((index) => {
  follow = false;
  look(index);
});
const tokens = new Tokens(() => shown && tokens.draw(shown, at));
const source = new SourcePanel(SIDE, sourceChanged);
const mask = new MaskTools(SIDE, () => task === "inpaint" && generate());
new Tour(choose);

const client = new Client(new URLSearchParams(location.search).has("small") ? "model-small" : "model", {
  model(file) {
    tokenizer = new Tokenizer(file.tokenizer);
    promptChanged();
  },
  loading(loaded, total, cached) {
    byId("bar", HTMLProgressElement).value = loaded / total;
    const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
    const text = cached
      ? "Taking the model from this browser's store"
      : `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`;
    byId("loading-text", HTMLLabelElement).textContent = loaded < total ? text : "Unpacking the model";
  },
  ready() {
    byId("loading", HTMLDivElement).hidden = true;
    machine.dataset.state = "running";
  },
  begin(run) {
    error.hidden = true;
    machine.dataset.state = "running";
    if (run.job.drag) return; // shown when it is done
    const { image: from } = run.job;
    if (from && from !== shown?.job.image) pen(image).putImageData(imageData(from, SIDE), 0, 0);
    shown = run;
    at = 0;
    follow = true;
    scrubber.begin(run);
    flow("noise", `0/${run.timesteps.length}`);
  },
  step(run, index) {
    if (run !== shown) return;
    const last = run.timesteps.length;
    flow(index < last ? "loop" : "image", `${Math.min(index + 1, last)}/${last}`);
    if (follow) look(index);
    else scrubber.at(at);
  },
  pixels(run, index) {
    if (run.job.drag) {
      shown = run;
      follow = true;
      scrubber.begin(run);
      look(index);
    } else if (run === shown) paint();
  },
  done(run) {
    if (run !== shown) return;
    flow("done", `${run.timesteps.length}/${run.timesteps.length}`);
    const { job } = run;
    const scheduler = `${run.steps} steps of ${SCHEDULERS[job.scheduler]}`;
    drawSource();
    const mixed = job.second ? ` mixed with “${job.second}”, ${percent(job.mix)}` : "";
    const alt = `Generated image for “${job.prompt}”${mixed}: seed ${job.seed}, ${scheduler}, guidance ${job.guidance}`;
    image.setAttribute("aria-label", alt);
    if (!job.drag) byId("spoken", HTMLParagraphElement).textContent = `${alt}. ${Math.round(run.ms!)} milliseconds.`;
    machine.dataset.state = job.drag ? "draft" : "done";
    machine.dataset.images = String(++drawn);
    machine.dataset.ms = String(Math.round(run.ms!));
    byId("time", HTMLElement).textContent = `${run.timesteps.length} steps in ${(run.ms! / 1000).toFixed(1)} s, on your device`;
    if (job.task === "inpaint") {
      mask.fresh = false;
      mask.painter.draw();
    }
  },
  failed(message) {
    machine.dataset.state = "failed";
    byId("loading", HTMLDivElement).hidden = true;
    error.textContent = message;
    error.hidden = false;
  },
});

// ---- what is shown ----

/** Show a step of the run. */
function look(index: number): void {
  if (!shown?.views[index]) return;
  at = index;
  scrubber.at(index);
  const { t, alphaBar, x_t, eps, x0_hat } = shown.views[index];
  drawLatent(byId("x_t", HTMLCanvasElement), x_t);
  drawLatent(byId("eps", HTMLCanvasElement), eps);
  drawLatent(byId("x0", HTMLCanvasElement), x0_hat);
  const [signal, sigma] = [Math.sqrt(alphaBar).toFixed(3), Math.sqrt(1 - alphaBar).toFixed(3)];
  byId("formula", HTMLParagraphElement).innerHTML =
    t < 0
      ? "<i>x</i><sub>0</sub>, the finished latent, decoded above"
      : `<i>x̂</i><sub>0</sub> = (<i>x<sub>t</sub></i> − ${sigma} <i>eps</i>) / ${signal}`;
  tokens.draw(shown, index);
  paint();
}

/** Show the image of the step in view, or of the nearest one that is decoded. */
function paint(): void {
  if (!shown) return;
  if (!shown.pixels[at]) client.look(shown, at);
  let nearest = at;
  while (nearest >= 0 && !shown.pixels[nearest]) nearest--;
  const pixels = shown.pixels[nearest];
  if (pixels) {
    pen(image).putImageData(imageData(pixels, SIDE), 0, 0);
    frame.classList.remove("waiting");
  }
}

/** Light up the part of the flow that works. */
function flow(part: "noise" | "loop" | "image" | "done", count: string): void {
  const order = ["text", "noise", "loop", "image", "done"];
  for (const item of byId("flow", HTMLOListElement).querySelectorAll("li")) {
    const behind = order.indexOf(item.dataset.part!) - order.indexOf(part);
    item.className = behind < 0 ? "done" : behind === 0 ? "now" : "";
  }
  byId("flow-count", HTMLElement).textContent = count;
}

/** The image that image-to-image started from, small in the corner of its result. */
function drawSource(): void {
  const from = byId("from", HTMLCanvasElement);
  const pixels = shown?.job.task === "img2img" ? shown.job.image : null;
  from.hidden = !pixels;
  if (pixels) pen(from).putImageData(imageData(pixels, SIDE), 0, 0);
}

/** Before the model is here: the noise that the first image will form out of. */
function showNoise(): void {
  const noise = new Generator(settings.txt2img.seed).randn(4 * 16 * 16);
  drawLatent(byId("x_t", HTMLCanvasElement), noise);
  drawLatent(byId("eps", HTMLCanvasElement), new Float32Array(1024));
  drawLatent(byId("x0", HTMLCanvasElement), new Float32Array(1024));
  drawLatent(image, noise);
  const pixels = pen(image).getImageData(0, 0, image.width, image.height);
  const large = new OffscreenCanvas(image.width, image.height);
  large.getContext("2d")!.putImageData(pixels, 0, 0);
  image.width = image.height = SIDE;
  pen(image).imageSmoothingEnabled = false;
  pen(image).drawImage(large, 0, 0, SIDE, SIDE);
}

// ---- what is asked ----

/** What the controls say, and how Python says it. */
function asked(drag: boolean): Omit<Job, "id"> {
  const { strength, ...rest } = settings[task];
  const enough = Math.floor(rest.steps * strength) > 0 ? strength : 0; // less than a step is none
  const input = task === "txt2img" ? null : source.current!.pixels;
  const painted = task === "inpaint" ? mask.pixels : null;
  return { ...rest, strength: enough, task, composite: mask.keeps, image: input, mask: painted, drag };
}

function generate(drag = false): void {
  if (task !== "txt2img" && !source.current) return; // it comes, and calls again
  const job = asked(drag);
  if (job.mask && !job.mask.some((value) => value > 127)) return; // nothing to repaint yet
  const sources = { scene: source.current?.code ?? null, mask: mask.code };
  byId("python", HTMLElement).textContent = pythonCall(job, sources);
  client.generate(job);
  if (asks++ > 0 && !drag) history.replaceState(null, "", toLink(task, settings[task]));
}

function promptChanged(): void {
  if (!tokenizer) return;
  tokens.of(prompt.value, tokenizer);
  const unknown = tokenizer.unknownWords(`${prompt.value} ${second.value}`).map((word) => `“${word}”`);
  const dropped = tokenizer.tokens(prompt.value).length - tokenizer.shown(prompt.value).length;
  const warnings = [
    unknown.length ? `The model was never shown ${unknown.join(", ")}, and can only guess.` : "",
    dropped ? `The text is too long: its last ${dropped} tokens are not read.` : "",
  ];
  byId("unknown", HTMLParagraphElement).textContent = warnings.filter(Boolean).join(" ");
}

function sourceChanged(): void {
  if (task === "inpaint") offerMask();
  else if (task === "img2img") generate();
}

function offerMask(): void {
  const { current } = source;
  if (!current) return;
  if (maskFor === current) return generate();
  maskFor = current;
  mask.offer(current.scene, source.parts);
}

/** Turn to a task. */
function choose(next: TaskName): void {
  if (task === next) return;
  task = next;
  for (const name of TASKS) {
    const tab = byId(`tab-${name}`, HTMLButtonElement);
    tab.setAttribute("aria-selected", String(name === task));
    tab.tabIndex = name === task ? 0 : -1;
  }
  machine.dataset.task = task;
  machine.setAttribute("aria-labelledby", `tab-${task}`);
  byId("source", HTMLElement).hidden = task === "txt2img";
  byId("strength-part", HTMLDivElement).hidden = task === "txt2img";
  byId("mix-part", HTMLDivElement).hidden = task !== "txt2img";
  byId("mask-tools", HTMLDivElement).hidden = task !== "inpaint";
  byId("mask-painter", HTMLDivElement).hidden = task !== "inpaint";
  byId("continue", HTMLButtonElement).hidden = task === "txt2img";
  showSettings();
  if (!source.current) void source.load();
  else if (task === "inpaint") offerMask();
  else generate();
}

function showSettings(): void {
  const { prompt: text, second: other, seed: number, scheduler, ...numbers } = settings[task];
  prompt.value = text;
  second.value = other;
  byId("mix-row", HTMLDivElement).hidden = !other;
  seed.value = String(number);
  for (const name of SLIDERS) {
    sliders[name].value = String(numbers[name]);
    output(name);
  }
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=scheduler]")) {
    radio.checked = radio.value === scheduler;
  }
  promptChanged();
}

function output(name: keyof typeof sliders): void {
  const value = settings[task][name];
  const text = name === "mix" ? percent(value) : name === "strength" ? value.toFixed(2) : String(value);
  byId(`${name}-out`, HTMLOutputElement).value = text;
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

// ---- what the reader does ----

function listen(): void {
  let typing = 0;
  let resting = 0;
  const ask = (): void => {
    window.clearTimeout(typing);
    settings[task].prompt = prompt.value;
    settings[task].second = second.value.trim();
    byId("mix-row", HTMLDivElement).hidden = !settings[task].second;
    promptChanged();
    generate();
  };
  for (const input of [prompt, second]) {
    input.addEventListener("input", () => {
      promptChanged();
      window.clearTimeout(typing);
      typing = window.setTimeout(ask, TYPING);
    });
  }
  second.addEventListener("keydown", (event) => {
    if (event.key === "Enter") ask();
  });
  byId("ask", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  byId("suggestions", HTMLDivElement).replaceChildren(
    ...SUGGESTIONS.map((text) =>
      button(text, {}, () => {
        prompt.value = text;
        second.value = "";
        ask();
      }),
    ),
    button("half dog, half pig", {}, () => {
      choose("txt2img");
      Object.assign(settings.txt2img, CROSSED);
      showSettings();
      generate();
    }),
  );

  const seedChanged = (): void => {
    const number = Math.round(Number(seed.value));
    if (!(number >= 0 && number <= LARGEST_SEED)) return;
    settings[task].seed = number;
    generate();
  };
  seed.addEventListener("change", seedChanged);
  byId("dice", HTMLButtonElement).addEventListener("click", () => {
    seed.value = String(Math.floor(Math.random() * 10_000));
    seedChanged();
  });
  for (const name of SLIDERS) {
    const slide = (drag: boolean): void => {
      window.clearTimeout(resting);
      if (drag) resting = window.setTimeout(generate, REST);
      settings[task][name] = Number(sliders[name].value);
      output(name);
      generate(drag);
    };
    sliders[name].addEventListener("input", () => slide(true));
    sliders[name].addEventListener("change", () => slide(false));
  }
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=scheduler]")) {
    radio.addEventListener("change", () => {
      settings[task].scheduler = radio.value as Scheduler;
      generate();
    });
  }

  for (const [i, name] of TASKS.entries()) {
    const tab = byId(`tab-${name}`, HTMLButtonElement);
    tab.addEventListener("click", () => choose(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = TASKS[(i + step + TASKS.length) % TASKS.length];
      choose(next);
      byId(`tab-${next}`, HTMLButtonElement).focus();
    });
  }

  byId("save", HTMLButtonElement).addEventListener("click", () => save(image, "generated.png"));
  byId("continue", HTMLButtonElement).addEventListener("click", () => {
    const result = shown?.pixels[shown.timesteps.length];
    if (result) source.take(result, "the image that you made");
  });
  byId("copy", HTMLButtonElement).addEventListener("click", (event) => {
    const pressed = event.currentTarget as HTMLButtonElement;
    void navigator.clipboard.writeText(byId("python", HTMLElement).textContent ?? "").then(() => {
      pressed.textContent = "Copied";
      window.setTimeout(() => (pressed.textContent = "Copy"), 1500);
    });
  });
}

listen();
const linked = fromLink(location.hash, settings);
showNoise();
if (linked === task) {
  showSettings();
  generate();
} else choose(linked);
if ("serviceWorker" in navigator && import.meta.env.PROD) void navigator.serviceWorker.register("./sw.js");
