// The steps of a run as bars, each as high as the share of noise at its level, with a slider over them and Play.

import type { Run } from "./client";
import { byId, make } from "./dom";

const PLAYED = 2600; // ms for all steps

export class Scrubber {
  private readonly input = byId("step", HTMLInputElement);
  private readonly bars = byId("bars", HTMLDivElement);
  private readonly out = byId("step-out", HTMLOutputElement);
  private readonly play = byId("play", HTMLButtonElement);
  private run: Run | null = null;
  private timer = 0;

  /** moved: the reader chose a step, by slider or Play. */
  constructor(private readonly moved: (index: number) => void) {
    this.input.addEventListener("input", () => {
      this.pause();
      this.moved(Number(this.input.value));
    });
    this.play.addEventListener("click", () => (this.timer ? this.pause() : this.start()));
    new ResizeObserver(() => this.fit()).observe(this.bars);
  }

  get playing(): boolean {
    return this.timer !== 0;
  }

  /** Draw the bars of a run; those that are not computed yet are pale. */
  begin(run: Run): void {
    this.pause();
    this.run = run;
    const last = run.timesteps.length;
    this.input.max = String(last);
    const heights = run.levels.map((level) => Math.max(6, 100 * Math.sqrt(1 - level)));
    this.bars.replaceChildren(...heights.map((height) => make("span", { style: `--height: ${height.toFixed(1)}%` })));
    this.bars.classList.toggle("dense", last > 40);
    this.fit();
  }

  /** Show where we are. */
  at(index: number): void {
    if (!this.run) return;
    const { timesteps, views } = this.run;
    const end = index === timesteps.length;
    this.input.value = String(index);
    this.out.textContent = end ? "end" : `t = ${timesteps[index]}`;
    this.input.setAttribute(
      "aria-valuetext",
      end ? "The end: the finished image" : `Step ${index + 1} of ${timesteps.length}, timestep ${timesteps[index]}`,
    );
    for (const [i, bar] of [...this.bars.children].entries()) {
      bar.className = i === index ? "now" : views[i] ? "done" : "";
    }
  }

  private start(): void {
    const { run } = this;
    if (!run) return;
    const last = run.timesteps.length;
    let index = Number(this.input.value) === last ? 0 : Number(this.input.value);
    const next = (): void => {
      this.moved(index);
      if (index++ >= last) return this.pause();
      this.timer = window.setTimeout(next, Math.max(60, PLAYED / last));
    };
    this.play.dataset.playing = "";
    this.play.setAttribute("aria-label", "Pause");
    next();
  }

  pause(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    delete this.play.dataset.playing;
    this.play.setAttribute("aria-label", "Play the steps");
  }

  /** The slider's handle is as wide as a bar, so that the two lie over each other. */
  private fit(): void {
    const width = this.bars.clientWidth / Math.max(1, this.bars.childElementCount);
    this.input.style.setProperty("--bar", `${width}px`);
  }
}
