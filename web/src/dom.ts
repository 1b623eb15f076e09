// Small helpers for the page's elements.

/** The element of an id, which index.html is known to hold, checked for its kind. */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
  return found;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function button(text: string, attributes: Record<string, string>, press: () => void): HTMLButtonElement {
  const made = make("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", press);
  return made;
}

/** A canvas's 2D context; `read` for one whose pixels are read often. */
export function pen(canvas: HTMLCanvasElement, read = false): CanvasRenderingContext2D {
  return canvas.getContext("2d", { willReadFrequently: read })!;
}

/** Pixels of a picture file or address, drawn to fill a square; white where it is transparent. */
export async function pixelsOf(source: Blob | string, side: number): Promise<Uint8ClampedArray> {
  const blob = typeof source === "string" ? await (await fetch(source)).blob() : source;
  const picture = await createImageBitmap(blob);
  const canvas = make("canvas", { width: String(side), height: String(side) });
  const context = pen(canvas, true);
  const scale = side / Math.min(picture.width, picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  context.fillStyle = "white";
  context.fillRect(0, 0, side, side);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (side - width) / 2, (side - height) / 2, width, height);
  return context.getImageData(0, 0, side, side).data;
}

/** Save a canvas as a PNG file. */
export function save(canvas: HTMLCanvasElement, name: string): void {
  make("a", { href: canvas.toDataURL("image/png"), download: name }).click();
}

export function imageData(pixels: Uint8ClampedArray, side: number): ImageData {
  return new ImageData(new Uint8ClampedArray(pixels), side);
}
