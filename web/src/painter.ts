// A canvas to paint on with mouse, pen, touch and keys: a mask over an image, or a drawing.

import { button, make, pen } from "./dom";

export const KEYS =
  "Arrow keys move the brush, the space bar held down paints or erases, plus and minus change the brush's width, " +
  "E switches between brush and eraser, U undoes, C clears.";

interface Point {
  x: number;
  y: number;
}

export interface PainterOptions {
  label: string;
  side: number; // of what is painted, in pixels
  colour: () => string;
  show: (on: CanvasRenderingContext2D, layer: HTMLCanvasElement, painting: boolean) => void;
  changed: () => void; // after each stroke, undo, clear
}

export class Painter {
  readonly canvas: HTMLCanvasElement;
  readonly layer: HTMLCanvasElement; // what is painted, transparent where nothing is
  readonly bar: HTMLDivElement;
  brush: number;
  private readonly undo: ImageData[] = [];
  private readonly brushButton: HTMLButtonElement;
  private readonly eraserButton: HTMLButtonElement;
  private readonly size: HTMLInputElement;
  private erasing = false;
  private at: Point;
  private near = false; // the brush is over the canvas, or the keys are on it
  private drawing: number | "space" | null = null; // what draws the stroke: a pointer's id, or the space bar

  constructor(private readonly options: PainterOptions) {
    const { side } = options;
    const sides = { width: String(side), height: String(side) };
    this.layer = make("canvas", sides);
    this.at = { x: side / 2, y: side / 2 };
    this.brush = Math.round(side / 6);
    this.canvas = make("canvas", {
      width: "512",
      height: "512",
      class: "painter",
      tabindex: "0",
      role: "application",
      "aria-label": `${options.label}. ${KEYS}`,
    });
    this.brushButton = button("Brush", { title: "Paint (E switches)" }, () => this.use(false));
    this.eraserButton = button("Eraser", { title: "Take paint away (E switches)" }, () => this.use(true));
    this.size = make("input", {
      type: "range",
      min: "2",
      max: String(side / 2),
      value: String(this.brush),
      title: "Width of the brush (plus and minus)",
      "aria-label": "Width of the brush",
    });
    this.size.addEventListener("input", () => this.resize(Number(this.size.value)));
    this.bar = make(
      "div",
      { class: "painter-bar" },
      make("div", { class: "segments" }, this.brushButton, this.eraserButton),
      this.size,
      button("Undo", { title: "Undo the last stroke (U)", class: "quiet" }, () => this.back()),
      button("Clear", { title: "Clear (C)", class: "quiet" }, () => this.clear()),
    );
    this.listen();
    this.press(false);
  }

  /** The opacity of each pixel. */
  get opacity(): Uint8ClampedArray {
    const { data } = pen(this.layer, true).getImageData(0, 0, this.options.side, this.options.side);
    return Uint8ClampedArray.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3]);
  }

  /** Replace what is painted, as one step that can be undone. */
  replace(paint: (on: CanvasRenderingContext2D) => void): void {
    this.keep();
    const on = pen(this.layer, true);
    on.globalCompositeOperation = "source-over";
    on.clearRect(0, 0, this.options.side, this.options.side);
    paint(on);
    this.draw();
  }

  draw(): void {
    const { side, show } = this.options;
    const on = pen(this.canvas);
    const scale = this.canvas.width / side;
    on.clearRect(0, 0, this.canvas.width, this.canvas.height);
    show(on, this.layer, this.drawing !== null);
    if (!this.near) return;
    on.setLineDash(this.erasing ? [10, 8] : []);
    for (const [width, colour] of [[5, "white"], [2.5, "black"]] as const) {
      on.beginPath();
      on.arc(this.at.x * scale, this.at.y * scale, (this.brush * scale) / 2, 0, 2 * Math.PI);
      on.lineWidth = width;
      on.strokeStyle = colour;
      on.stroke();
    }
    on.setLineDash([]);
  }

  private keep(): void {
    this.undo.push(pen(this.layer, true).getImageData(0, 0, this.options.side, this.options.side));
    if (this.undo.length > 50) this.undo.shift();
  }

  private begin(by: number | "space"): void {
    this.keep();
    this.drawing = by;
    this.moveTo(this.at);
  }

  private moveTo(to: Point): void {
    if (this.drawing !== null) {
      const on = pen(this.layer, true);
      on.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
      on.strokeStyle = this.options.colour();
      on.lineCap = "round";
      on.lineWidth = this.brush;
      on.beginPath();
      on.moveTo(this.at.x, this.at.y);
      on.lineTo(to.x + 0.01, to.y); // a dot, too, has a length
      on.stroke();
    }
    this.at = to;
  }

  private end(by: number | "space"): void {
    if (this.drawing !== by) return;
    this.drawing = null;
    this.draw();
    this.options.changed();
  }

  private back(): void {
    const last = this.drawing === null && this.undo.pop();
    if (!last) return;
    pen(this.layer, true).putImageData(last, 0, 0);
    this.draw();
    this.options.changed();
  }

  private clear(): void {
    if (this.drawing !== null) return;
    this.replace(() => {});
    this.options.changed();
  }

  private resize(to: number): void {
    this.brush = Math.min(Math.max(to, 2), this.options.side / 2);
    this.size.value = String(this.brush);
    this.draw();
  }

  private use(erase: boolean): void {
    this.press(erase);
    this.draw();
  }

  private press(erase: boolean): void {
    this.erasing = erase;
    this.brushButton.setAttribute("aria-pressed", String(!erase));
    this.eraserButton.setAttribute("aria-pressed", String(erase));
  }

  private position(event: PointerEvent): Point {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.options.side / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  private listen(): void {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button || this.drawing !== null) return; // another button, or a second finger
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.near = true;
      this.at = this.position(event);
      this.begin(event.pointerId);
      this.draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.drawing !== null && this.drawing !== event.pointerId) return;
      this.near = true;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) this.moveTo(this.position(each));
      this.draw();
    });
    for (const name of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(name, (event) => this.end(event.pointerId));
    }
    const far = (): void => {
      this.near = false;
      this.draw();
    };
    canvas.addEventListener("pointerleave", far);
    canvas.addEventListener("focus", () => {
      this.near = canvas.matches(":focus-visible");
      this.draw();
    });
    canvas.addEventListener("blur", () => {
      this.end("space");
      far();
    });
    canvas.addEventListener("keyup", (event) => {
      if (event.key === " ") this.end("space");
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { side } = this.options;
    const step = Math.max(1, Math.round(side / 64));
    const moves: Record<string, [number, number]> = {
      ArrowLeft: [-step, 0],
      ArrowRight: [step, 0],
      ArrowUp: [0, -step],
      ArrowDown: [0, step],
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in moves) {
      const inside = (value: number) => Math.min(Math.max(value, 0), side);
      this.moveTo({ x: inside(this.at.x + moves[key][0]), y: inside(this.at.y + moves[key][1]) });
    } else if (key === " ") {
      if (this.drawing === null) this.begin("space");
    } else if (key === "+" || key === "=") this.resize(this.brush + 2);
    else if (key === "-") this.resize(this.brush - 2);
    else if (key === "e") this.use(!this.erasing);
    else if (key === "u") this.back();
    else if (key === "c") this.clear();
    else return; // not ours
    event.preventDefault();
    this.near = true;
    this.draw();
  }
}
