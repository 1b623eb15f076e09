// The image that image-to-image and in-painting start from: a scene, a file, or a drawing.

import { byId, button, imageData, make, pen, pixelsOf, save } from "./dom";
import { Painter } from "./painter";

export interface Scene {
  name: string;
  caption: string;
  code: string; // how Python renders it
}

/** An image to start from, and what is known of it. */
export interface Source {
  pixels: Uint8ClampedArray;
  caption: string;
  code: string | null; // of the scene that it is, in Python
  scene: string | null; // its name; there are masks of its parts
}

const COLOURS = {
  white: "#ffffff",
  black: "#2b2b2b",
  brown: "#a8703a",
  orange: "#e8892b",
  pink: "#f2a7b8",
  blue: "#5b8fd6",
  sky: "#9fd3ef",
  grass: "#7cc36b",
  sand: "#f0dca0",
};

export class SourcePanel {
  current: Source | null = null;
  parts: string[] = [];
  private readonly drawing = byId("drawing", HTMLDivElement);
  private readonly drawButton = byId("draw", HTMLButtonElement);
  private readonly scenes = byId("scenes", HTMLDivElement);
  private painter: Painter | null = null;
  private colour = COLOURS.brown;

  constructor(
    private readonly side: number,
    private readonly changed: () => void,
  ) {
    byId("file", HTMLInputElement).addEventListener("change", (event) => {
      const file = (event.target as HTMLInputElement).files?.[0];
      if (file) void this.file(file);
    });
    this.drawButton.addEventListener("click", () => this.draw());
    byId("save-source", HTMLButtonElement).addEventListener("click", () => {
      if (!this.current) return;
      const canvas = make("canvas", { width: String(side), height: String(side) });
      pen(canvas).putImageData(imageData(this.current.pixels, side), 0, 0);
      save(canvas, "image.png");
    });
  }

  /** Show the scenes, and start from the first. */
  async load(): Promise<void> {
    const response = await fetch("scenes/scenes.json");
    const { scenes, parts } = (await response.json()) as { scenes: Scene[]; parts: string[] };
    this.parts = parts;
    this.scenes.replaceChildren(
      ...scenes.map((scene) => {
        const picture = make("img", { src: `scenes/${scene.name}.png`, alt: scene.caption, width: "56", height: "56" });
        const choice = make("button", { type: "button", "aria-pressed": "false", title: scene.caption }, picture);
        choice.addEventListener("click", () => void this.scene(scene));
        choice.dataset.scene = scene.name;
        return choice;
      }),
    );
    await this.scene(scenes[0]);
  }

  /** Start from pixels that the page itself has made. */
  take(pixels: Uint8ClampedArray, caption: string): void {
    this.set({ pixels, caption, code: null, scene: null });
  }

  private async scene({ name, caption, code }: Scene): Promise<void> {
    const pixels = await pixelsOf(`scenes/${name}.png`, this.side);
    this.set({ pixels, caption, code, scene: name });
  }

  private async file(file: File): Promise<void> {
    try {
      this.set({ pixels: await pixelsOf(file, this.side), caption: file.name, code: null, scene: null });
    } catch {
      byId("error", HTMLParagraphElement).textContent = `${file.name} is not an image that this browser can read.`;
      byId("error", HTMLParagraphElement).hidden = false;
    }
  }

  private draw(): void {
    this.painter ??= this.makePainter();
    this.drawn();
  }

  private set(source: Source, drawing = false): void {
    this.current = source;
    this.drawing.hidden = !drawing;
    this.drawButton.setAttribute("aria-pressed", String(drawing));
    for (const choice of this.scenes.querySelectorAll("button")) {
      choice.setAttribute("aria-pressed", String(choice.dataset.scene === source.scene));
    }
    this.changed();
  }

  private drawn(): void {
    const canvas = make("canvas", { width: String(this.side), height: String(this.side) });
    const on = pen(canvas, true);
    on.fillStyle = "white";
    on.fillRect(0, 0, this.side, this.side);
    on.drawImage(this.painter!.layer, 0, 0);
    const pixels = on.getImageData(0, 0, this.side, this.side).data;
    this.set({ pixels, caption: "your drawing", code: null, scene: null }, true);
  }

  private makePainter(): Painter {
    const painter = new Painter({
      label: "Drawing",
      side: this.side,
      colour: () => this.colour,
      show(on, layer) {
        on.fillStyle = "white";
        on.fillRect(0, 0, on.canvas.width, on.canvas.height);
        on.imageSmoothingQuality = "high";
        on.drawImage(layer, 0, 0, on.canvas.width, on.canvas.height);
      },
      changed: () => this.drawn(),
    });
    painter.brush = 12;
    painter.replace((on) => flatDog(on, this.side));
    const swatches = Object.entries(COLOURS).map(([name, colour]) => {
      const swatch = button("", { class: "swatch", style: `--swatch: ${colour}`, "aria-label": name, title: name }, () => {
        this.colour = colour;
        for (const other of swatches) other.setAttribute("aria-pressed", String(other === swatch));
      });
      swatch.setAttribute("aria-pressed", String(colour === this.colour));
      return swatch;
    });
    this.drawing.replaceChildren(
      painter.canvas,
      make("div", { class: "swatches", role: "group", "aria-label": "Colour" }, ...swatches),
      painter.bar,
    );
    painter.draw();
    return painter;
  }
}

/** A drawing to begin with: a dog of a few flat shapes. */
function flatDog(on: CanvasRenderingContext2D, side: number): void {
  const unit = side / 128;
  const oval = (x: number, y: number, wide: number, high: number, colour: string): void => {
    on.fillStyle = colour;
    on.beginPath();
    on.ellipse(x * unit, y * unit, wide * unit, high * unit, 0, 0, 2 * Math.PI);
    on.fill();
  };
  on.fillStyle = COLOURS.sky;
  on.fillRect(0, 0, side, side);
  on.fillStyle = COLOURS.grass;
  on.fillRect(0, 88 * unit, side, 40 * unit);
  oval(64, 98, 25, 28, COLOURS.brown);
  oval(64, 50, 33, 31, "#b57b42");
  for (const x of [33, 95]) oval(x, 46, 11, 23, "#7d4e24");
  for (const x of [53, 75]) {
    oval(x, 45, 6, 6, "white");
    oval(x, 46, 3, 4, "black");
  }
  oval(64, 60, 7, 5, "black");
}
