// The prompt's tokens: where each acts at the step in view, small on its chip, and large over the image if chosen.

import { attentionOf, type Run } from "./client";
import type { Token, Tokenizer } from "./core/tokenizer";
import { byId, make } from "./dom";
import { drawHeat, drawVeil } from "./drawing";

const BLUE: [number, number, number] = [0, 114, 178];
const SKY: [number, number, number] = [86, 180, 233];

export class Tokens {
  private readonly group = byId("tokens", HTMLDivElement);
  private readonly veil = byId("veil", HTMLCanvasElement);
  private readonly badge = byId("badge", HTMLParagraphElement);
  private readonly dark = window.matchMedia("(prefers-color-scheme: dark)");
  private prompt = "";
  private tokens: Token[] = [];
  private chosen: number | null = null;

  /** again: the token that is chosen has changed, and the step in view must be drawn again. */
  constructor(private readonly again: () => void) {}

  /** Show the tokens of a prompt. */
  of(prompt: string, tokenizer: Tokenizer): void {
    if (prompt === this.prompt) return;
    this.prompt = prompt;
    this.choose(null);
    this.tokens = tokenizer.shown(prompt);
    this.group.replaceChildren(
      ...this.tokens.map(({ text, endsWord, id }, i) => {
        const chip = make(
          "button",
          {
            type: "button",
            class: endsWord ? "token" : "token part",
            "aria-pressed": "false",
            "aria-label": `Where "${text}" acts`,
            title: `token ${id}`,
          },
          make("canvas", { width: "16", height: "16", "aria-hidden": "true" }),
          make("span", {}, text),
        );
        chip.addEventListener("click", () => this.choose(this.chosen === i ? null : i));
        return chip;
      }),
    );
    if (!this.tokens.length) this.group.append(make("span", { class: "hint" }, "No text: the model is not guided."));
  }

  /** Draw where they act at a step of a run. */
  draw(run: Run, index: number): void {
    const same = run.job.prompt === this.prompt;
    const canvases = this.group.querySelectorAll("canvas");
    for (const [i, canvas] of canvases.entries()) {
      const map = same ? attentionOf(run, index, i + 1) : null; // after the start token
      if (map) drawHeat(canvas, map, this.dark.matches ? SKY : BLUE);
    }
    const map = same && this.chosen !== null ? attentionOf(run, index, this.chosen + 1) : null;
    this.veil.hidden = !map;
    this.badge.hidden = !map;
    if (map && this.chosen !== null) {
      drawVeil(this.veil, map);
      this.badge.textContent = `where “${this.tokens[this.chosen].text}” acts`;
    }
  }

  private choose(token: number | null): void {
    this.chosen = token;
    for (const [i, chip] of [...this.group.querySelectorAll("button")].entries()) {
      chip.setAttribute("aria-pressed", String(i === token));
    }
    this.again();
  }
}
