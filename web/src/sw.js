// Keeps the page itself, so that it opens without network; the model's files are kept by weights.ts.
// vite.config.ts fills in the version and the files.

const STORE = "ldm-course-page-" + "VERSION";
const FILES = [/* FILES */];

self.addEventListener("install", (event) => {
  const load = async () => (await caches.open(STORE)).addAll(FILES);
  event.waitUntil(load().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = (name) => name.startsWith("ldm-course-page-") && name !== STORE;
  const tidy = async () => Promise.all((await caches.keys()).filter(old).map((name) => caches.delete(name)));
  event.waitUntil(tidy().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { pathname, origin } = new URL(request.url);
  if (request.method !== "GET" || origin !== self.location.origin || pathname.endsWith(".gz")) return;
  event.respondWith(pathname.includes("/assets/") ? storeFirst(request) : networkFirst(request));
});

/** Files whose names change with their contents. */
async function storeFirst(request) {
  return (await caches.match(request)) ?? keep(request, await fetch(request));
}

/** The others: new if there is network, else as they were last. */
async function networkFirst(request) {
  try {
    return await keep(request, await fetch(request));
  } catch (error) {
    const kept = await caches.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

async function keep(request, response) {
  if (response.ok) await (await caches.open(STORE)).put(request, response.clone());
  return response;
}
