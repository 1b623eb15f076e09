// The mask of in-painting: painted on the image itself, or one of the parts that are known.

import { byId, button, make, pen, save } from "./dom";
import { Painter } from "./painter";

const TINT = "rgb(230, 97, 1)"; // orange over the part to be made anew
const REGIONS = { "Lower half": "lower-half", "Upper half": "upper-half" };

export class MaskTools {
  readonly painter: Painter;
  /** How Python gets at the mask. */
  code = "";
  /** The mask shows as a tint until an image has been made with it, and as an outline then. */
  fresh = true;
  private readonly parts = make("div", { class: "chips", role: "group", "aria-label": "Masks" });
  private readonly composite = make("input", { type: "checkbox", id: "composite", checked: "" });

  constructor(
    private readonly side: number,
    private readonly changed: () => void,
  ) {
    this.painter = new Painter({
      label: "Mask painter: paint over what is to be made anew",
      side,
      colour: () => "white",
      show: (on, layer, painting) => this.show(on, layer, painting),
      changed: () => {
        this.code = 'ldm.load_image("mask.png")  # by "Save the mask"';
        this.fresh = true;
        this.painter.draw();
        changed();
      },
    });
    const place = byId("mask-painter", HTMLDivElement);
    place.replaceChildren(this.painter.canvas);
    const saver = button("Save the mask", { class: "quiet" }, () => this.save());
    this.composite.addEventListener("change", changed);
    const composite = make("label", { class: "check" }, this.composite, " Keep the original pixels outside the mask");
    byId("mask-tools", HTMLDivElement).replaceChildren(
      this.painter.bar,
      this.parts,
      make("div", { class: "row between wrap" }, composite, saver),
    );
  }

  get keeps(): boolean {
    return this.composite.checked;
  }

  get pixels(): Uint8ClampedArray {
    return this.painter.opacity;
  }

  /** Offer the masks that fit a scene (null: an image of which no parts are known), and begin with the first. */
  offer(scene: string | null, parts: string[]): void {
    const named = scene === null ? [] : parts.map((part) => part[0].toUpperCase() + part.slice(1));
    const names = [...Object.keys(REGIONS), ...named];
    this.parts.replaceChildren(...names.map((name) => button(name, {}, () => void this.use(name, scene).then(this.changed))));
    void this.use(names[0], scene).then(this.changed);
  }

  private async use(name: string, scene: string | null): Promise<void> {
    const { side } = this;
    if (name in REGIONS) {
      const region = REGIONS[name as keyof typeof REGIONS];
      this.code = `region_mask("${region}", image.size)`;
      this.painter.replace((on) => {
        on.fillStyle = "white";
        on.fillRect(0, region === "lower-half" ? side / 2 : 0, side, side / 2);
      });
    } else {
      const part = name.toLowerCase();
      const picture = await createImageBitmap(await (await fetch(`scenes/${scene}-${part}.png`)).blob());
      const reader = pen(make("canvas", { width: String(side), height: String(side) }), true);
      reader.drawImage(picture, 0, 0);
      const mask = reader.getImageData(0, 0, side, side);
      for (let i = 0; i < mask.data.length; i += 4) {
        mask.data[i + 3] = mask.data[i];
        mask.data.fill(255, i, i + 3);
      }
      this.code = `scene.mask("${part}")`;
      this.painter.replace((on) => on.putImageData(mask, 0, 0));
    }
    this.fresh = true;
    this.painter.draw();
  }

  private show(on: CanvasRenderingContext2D, layer: HTMLCanvasElement, painting: boolean): void {
    const size = on.canvas.width;
    if (painting || this.fresh) {
      const tinted = make("canvas", { width: String(this.side), height: String(this.side) });
      const tint = pen(tinted);
      tint.drawImage(layer, 0, 0);
      tint.globalCompositeOperation = "source-in";
      tint.fillStyle = TINT;
      tint.fillRect(0, 0, this.side, this.side);
      on.globalAlpha = 0.6;
      on.imageSmoothingQuality = "high";
      on.drawImage(tinted, 0, 0, size, size);
      on.globalAlpha = 1;
    }
    this.outline(on);
  }

  /** A dashed line around the mask. */
  private outline(on: CanvasRenderingContext2D): void {
    const { side } = this;
    const mask = this.pixels;
    const scale = on.canvas.width / side;
    const inside = (x: number, y: number): boolean => x >= 0 && y >= 0 && x < side && y < side && mask[y * side + x] > 127;
    on.beginPath();
    for (let y = 0; y <= side; y++) {
      for (let x = 0; x <= side; x++) {
        if (inside(x, y) !== inside(x - 1, y)) {
          on.moveTo(x * scale, y * scale);
          on.lineTo(x * scale, (y + 1) * scale);
        }
        if (inside(x, y) !== inside(x, y - 1)) {
          on.moveTo(x * scale, y * scale);
          on.lineTo((x + 1) * scale, y * scale);
        }
      }
    }
    on.lineWidth = 3;
    on.strokeStyle = "rgba(255, 255, 255, 0.9)";
    on.stroke();
    on.lineWidth = 1.5;
    on.strokeStyle = TINT;
    on.stroke();
  }

  /** Save the mask as Python wants it: white where to repaint, black elsewhere. */
  private save(): void {
    const { side } = this;
    const canvas = make("canvas", { width: String(side), height: String(side) });
    const on = pen(canvas);
    on.fillStyle = "black";
    on.fillRect(0, 0, side, side);
    on.drawImage(this.painter.layer, 0, 0);
    save(canvas, "mask.png");
  }
}
