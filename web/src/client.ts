// The page's side of the worker: it starts runs, and keeps what comes back of them.

import type { FromWorker, Job, ModelFile, StepView, ToWorker } from "./messages";

/** A run and what has come back of it so far. */
export interface Run {
  job: Job;
  steps: number;
  timesteps: number[];
  levels: number[]; // alpha_bar of each State
  views: StepView[];
  pixels: (Uint8ClampedArray | undefined)[]; // x0_hat decoded
  ms: number | null; // null while it runs
}

export interface Listener {
  model(file: ModelFile): void;
  loading(loaded: number, total: number, cached: boolean): void;
  ready(): void;
  begin(run: Run): void;
  step(run: Run, index: number): void;
  pixels(run: Run, index: number): void;
  done(run: Run): void;
  failed(message: string): void;
}

export class Client {
  private readonly worker: Worker;
  private readonly jobs = new Map<number, Job>();
  private run: Run | null = null; // of which messages come in
  private last = 0;

  constructor(
    model: string,
    private readonly listener: Listener,
  ) {
    this.worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: model });
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.hear(data);
    this.worker.onerror = (event) => listener.failed(event.message || "The page's worker could not start.");
  }

  generate(job: Omit<Job, "id">): void {
    const whole = { ...job, id: ++this.last };
    this.jobs.set(whole.id, whole);
    this.send({ type: "run", job: whole });
  }

  /** Ask for the image of a step before the others. */
  look(run: Run, index: number): void {
    this.send({ type: "look", id: run.job.id, index });
  }

  private send(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private hear(message: FromWorker): void {
    const { listener } = this;
    if (message.type === "model") listener.model(message.model);
    else if (message.type === "loading") listener.loading(message.loaded, message.total, message.cached);
    else if (message.type === "ready") listener.ready();
    else if (message.type === "failed") listener.failed(message.message);
    else if (message.type === "begin") {
      const job = this.jobs.get(message.id)!;
      for (const id of this.jobs.keys()) if (id <= message.id) this.jobs.delete(id);
      const { steps, timesteps, levels } = message;
      this.run = { job, steps, timesteps, levels, views: [], pixels: [], ms: null };
      listener.begin(this.run);
    } else if (this.run?.job.id === message.id) {
      if (message.type === "step") {
        this.run.views[message.index] = message.view;
        listener.step(this.run, message.index);
      } else if (message.type === "pixels") {
        this.run.pixels[message.index] = message.pixels;
        listener.pixels(this.run, message.index);
      } else {
        this.run.ms = message.ms;
        listener.done(this.run);
      }
    }
  }
}

const CELLS = 16 * 16; // of a latent

/** Where a token (0 is the start token) acts at a step, from 0, least, to 1, most; at the end the mean of all steps. */
export function attentionOf(run: Run, index: number, token: number): Float32Array | null {
  const looks = index < run.timesteps.length ? [run.views[index]] : run.views;
  const sum = new Float32Array(CELLS);
  for (const look of looks) {
    const maps = look?.attention;
    if (maps) for (let i = 0; i < CELLS; i++) sum[i] += maps[token * CELLS + i];
  }
  const [low, high] = [Math.min(...sum), Math.max(...sum)];
  return high > low ? sum.map((value) => ((value - low) / (high - low)) ** 1.5) : null;
}
