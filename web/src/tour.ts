// The guided tour: eight short steps beside the machine. Each lights up its part, and leads to the page that builds it.

import { byId, button, make } from "./dom";
import type { TaskName } from "./messages";

interface Stop {
  title: string;
  text: string;
  part: string; // id of the element that lights up
  task: TaskName;
  notebook: string; // of the course, and the heading in it
  anchor: string;
  builds: string;
}

const NOTEBOOKS = "../notebooks/";

export const STOPS: Stop[] = [
  {
    title: "Text",
    text: "The prompt is cut into tokens, and the text encoder turns them into 77 vectors of 128 numbers. The small maps show where in the image each token acts; tap one.",
    part: "token-part",
    task: "txt2img",
    notebook: "04_txt2img",
    anchor: "what-the-unet-reads",
    builds: "What the UNet reads",
  },
  {
    title: "Noise",
    text: "Everything starts as noise: 4 × 16 × 16 random numbers, a latent. The seed decides which ones. Another seed is another image; the same seed is the same image, here and in Python.",
    part: "seed-part",
    task: "txt2img",
    notebook: "04_txt2img",
    anchor: "build-it",
    builds: "Build it",
  },
  {
    title: "Timesteps",
    text: "Each bar is a step, as high as the noise that is left. The model was trained on a thousand noise levels; we visit a few of them, from high to low. Drag across them.",
    part: "scrub",
    task: "txt2img",
    notebook: "04_txt2img",
    anchor: "exercise-the-timesteps",
    builds: "Write the timesteps",
  },
  {
    title: "The loop",
    text: "At each step the UNet predicts the noise in the latent. Take that away, and you have an estimate of the image. Then go back to a little less noise than before, and ask again.",
    part: "equation",
    task: "txt2img",
    notebook: "04_txt2img",
    anchor: "exercise-the-loop",
    builds: "Write the loop",
  },
  {
    title: "The decoder",
    text: "The estimate is still a latent: 1,024 numbers. The VAE's decoder turns them into the 49,152 numbers of an image of 128 × 128 pixels. What you see is decoded at every step.",
    part: "frame",
    task: "txt2img",
    notebook: "01_autoencoder_vs_vae",
    anchor: "stable-diffusion-s-own-vae",
    builds: "Stable Diffusion’s own VAE",
  },
  {
    title: "Text to image",
    text: "Now you: drag guidance to 1, then to 12. At 1 the text is followed plainly, and may be missed; beyond that it is exaggerated, until the colours break.",
    part: "guidance-part",
    task: "txt2img",
    notebook: "04_txt2img",
    anchor: "exercise-guidance",
    builds: "Write guidance",
  },
  {
    title: "Image to image",
    text: "Start from an image and not from noise: add noise to its latent, and denoise it under a new text. Strength says how much noise, and so how much may change. Drag it.",
    part: "strength-part",
    task: "img2img",
    notebook: "05_img2img",
    anchor: "exercise-the-steps-that-are-left",
    builds: "Write strength",
  },
  {
    title: "In-painting",
    text: "Paint over a part, and only that part is made anew. After each step the rest, the known region, is put back at the noise level just reached. Paint on the image.",
    part: "frame",
    task: "inpaint",
    notebook: "06_inpainting",
    anchor: "exercise-keep-the-known-region",
    builds: "Keep the known region",
  },
];

export class Tour {
  private readonly section = byId("tour", HTMLElement);
  private at: number | null = null;

  constructor(private readonly show: (task: TaskName) => void) {
    byId("tour-start", HTMLButtonElement).addEventListener("click", () => this.go(0));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.at !== null) this.leave();
    });
    this.draw();
  }

  private go(to: number): void {
    this.at = to;
    this.show(STOPS[to].task);
    this.draw();
    const part = document.getElementById(STOPS[to].part)!;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    part.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
    this.section.querySelector<HTMLElement>("h2")?.focus({ preventScroll: true });
  }

  private leave(): void {
    this.at = null;
    this.draw();
    byId("tour-start", HTMLButtonElement).focus({ preventScroll: true });
  }

  private draw(): void {
    const { at } = this;
    for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
    this.section.classList.toggle("on", at !== null);
    if (at === null) {
      const titles = STOPS.map(({ title }, i) =>
        make("li", {}, button(title, { class: "link" }, () => this.go(i))),
      );
      this.section.replaceChildren(
        make("h2", {}, "How it works"),
        make("p", {}, "Eight short steps, each beside its part of the machine."),
        make("ol", { class: "stops" }, ...titles),
        button("Start the tour", { class: "primary" }, () => this.go(0)),
        make(
          "p",
          { class: "hint" },
          "Beyond: ",
          make("a", { href: `${NOTEBOOKS}beyond/teach_it.html` }, "teach this model something new"),
          ", and ",
          make("a", { href: `${NOTEBOOKS}beyond/flow.html` }, "see that it was a flow all along"),
          ".",
        ),
      );
      return;
    }
    const stop = STOPS[at];
    document.getElementById(stop.part)!.classList.add("lit");
    const address = `${NOTEBOOKS}${stop.notebook}.html${stop.anchor && `#${stop.anchor}`}`;
    const dots = STOPS.map(({ title }, i) =>
      button("", { "aria-label": `Step ${i + 1}: ${title}`, ...(i === at ? { "aria-current": "step" } : {}) }, () => this.go(i)),
    );
    const back = button("Back", { class: "quiet" }, () => this.go(at - 1));
    back.disabled = at === 0;
    const last = at === STOPS.length - 1;
    this.section.replaceChildren(
      make(
        "div",
        { class: "row between" },
        make("div", { class: "dots" }, ...dots),
        button("×", { class: "icon", "aria-label": "Leave the tour" }, () => this.leave()),
      ),
      make("h2", { tabindex: "-1" }, stop.title),
      make("p", {}, stop.text),
      make("p", {}, make("a", { href: address }, `Build it: ${stop.builds}`)),
      make(
        "div",
        { class: "row between" },
        make("p", { class: "hint" }, `Step ${at + 1} of ${STOPS.length}`),
        make(
          "div",
          { class: "row" },
          back,
          button(last ? "Done" : "Next", { class: "primary" }, () => (last ? this.leave() : this.go(at + 1))),
        ),
      ),
    );
  }
}
