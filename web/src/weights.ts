// The model's files: downloaded packed, with progress, and kept in the browser's cache under their checksums.

import type { ModelFile } from "./messages";

const STORE = "ldm-course-weights";

export class Downloads {
  private loaded = 0;
  private total = 0;
  private cached = true;

  constructor(
    private readonly base: string, // where model.json is
    private readonly files: ModelFile["files"],
    private readonly progress: (loaded: number, total: number, cached: boolean) => void,
  ) {}

  /** The contents of some files, loaded side by side. */
  async get(names: string[]): Promise<Uint8Array<ArrayBuffer>[]> {
    this.total += names.reduce((sum, name) => sum + this.files[name].packed, 0);
    const store = await openStore();
    return Promise.all(names.map((name) => this.file(name, store)));
  }

  /** Forget what no model of this page needs any more. */
  async tidy(): Promise<void> {
    const store = await openStore();
    const wanted = new Set(Object.values(this.files).map((file) => this.key(file.sha256)));
    for (const request of (await store?.keys()) ?? []) if (!wanted.has(request.url)) await store?.delete(request);
  }

  private key(sha256: string): string {
    return new URL(`weights/${sha256}`, this.base).href;
  }

  private async file(name: string, store: Cache | null): Promise<Uint8Array<ArrayBuffer>> {
    const { url, sha256 } = this.files[name];
    const kept = await store?.match(this.key(sha256));
    if (!kept) this.cached = false;
    const response = kept ?? (await fetch(new URL(url, this.base)));
    if (!response.ok) throw new Error(`${url} could not be loaded (${response.status}); reload to try again.`);
    const packed = await this.read(response);
    const data = await unpack(packed);
    if (kept) return data;
    if (!(await matches(data, sha256))) throw new Error(`${url} arrived damaged; reload to try again.`);
    await store?.put(this.key(sha256), new Response(packed)).catch(() => {}); // a full disk: load again next time
    return data;
  }

  private async read(response: Response): Promise<Uint8Array<ArrayBuffer>> {
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    const reader = response.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return new Uint8Array(await new Blob(chunks).arrayBuffer());
      chunks.push(value);
      this.loaded += value.length;
      this.progress(Math.min(this.loaded, this.total), this.total, this.cached);
    }
  }
}

/** Unpacked, unless the server has done it already. */
async function unpack(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data;
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function matches(data: Uint8Array<ArrayBuffer>, sha256: string): Promise<boolean> {
  if (!self.crypto?.subtle) return true; // a page without https cannot check
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

/** The browser's cache; null where there is none (no https, a private window). */
async function openStore(): Promise<Cache | null> {
  return self.caches ? caches.open(STORE).catch(() => null) : null;
}
