// The mask painter: an image, and a mask over it that pointer and keys can paint. The mask travels as a PNG.

const SHOWN = 384; // side on the page, in CSS pixels
const TINT = "rgb(230, 97, 1)"; // orange over the part to be painted anew
const KEYS =
  "Arrow keys move the brush, the space bar held down paints or erases, plus and minus change the brush's width, " +
  "E switches between brush and eraser, U undoes, C clears.";

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(text, title, press) {
  const made = element("button", { type: "button", title }, text);
  made.addEventListener("click", press);
  return made;
}

function render({ model, el }) {
  const [width, height] = model.get("size");
  const dense = Math.max(1, window.devicePixelRatio || 1); // sharp on dense screens, too
  const shown = SHOWN / Math.max(width, height);
  const scale = shown * dense; // canvas pixels for one of the image's

  const canvas = element("canvas", {
    width: Math.round(width * scale),
    height: Math.round(height * scale),
    style: `width: ${Math.round(width * shown)}px`,
    tabindex: 0,
    role: "application",
    "aria-label": "Mask painter. " + KEYS,
  });
  const mask = element("canvas", { width, height }); // the mask itself, in the image's own pixels
  const tinted = element("canvas", { width, height });
  const image = new Image();
  const pen = canvas.getContext("2d");
  const paint = mask.getContext("2d", { willReadFrequently: true });
  const status = element("span", { "aria-live": "polite", class: "ldm-painter-status" });

  let erasing = false;
  let at = { x: width / 2, y: height / 2 }; // where the brush is
  let drawing = null; // what draws the stroke: a pointer's id, or "space"; null between strokes
  let sent = ""; // the mask as Python knows it
  const undo = [];

  function draw() {
    const layer = tinted.getContext("2d");
    layer.globalCompositeOperation = "copy";
    layer.drawImage(mask, 0, 0);
    layer.globalCompositeOperation = "source-in";
    layer.fillStyle = TINT;
    layer.fillRect(0, 0, width, height);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    pen.globalAlpha = 0.6;
    pen.drawImage(tinted, 0, 0, canvas.width, canvas.height);
    pen.globalAlpha = 1;
    pen.setLineDash(erasing ? [6 * dense, 4 * dense] : []);
    for (const [line, colour] of [[4, "white"], [2, "black"]]) {
      pen.beginPath();
      pen.arc(at.x * scale, at.y * scale, (model.get("brush") * scale) / 2, 0, 2 * Math.PI);
      pen.lineWidth = line * dense;
      pen.strokeStyle = colour;
      pen.stroke();
    }
  }

  function tell() {
    const alpha = paint.getImageData(0, 0, width, height).data;
    let count = 0;
    for (let i = 3; i < alpha.length; i += 4) count += alpha[i] > 127;
    status.textContent = count ? Math.max(1, Math.round((100 * count) / (width * height))) + "% masked" : "no mask yet";
  }

  function send() {
    sent = mask.toDataURL("image/png").split(",")[1];
    model.set("mask", sent);
    model.save_changes();
    tell();
    draw();
  }

  function receive() {
    const text = model.get("mask");
    if (text === sent) return;
    sent = text;
    undo.length = 0;
    paint.globalCompositeOperation = "source-over";
    paint.clearRect(0, 0, width, height);
    const image = new Image();
    image.onload = () => {
      if (model.get("mask") !== text) return; // a newer one has come
      paint.drawImage(image, 0, 0);
      tell();
      draw();
    };
    if (text) image.src = "data:image/png;base64," + text;
    tell();
    draw();
  }

  function keep() {
    undo.push(paint.getImageData(0, 0, width, height));
    if (undo.length > 50) undo.shift();
  }

  function begin(by) {
    keep();
    drawing = by;
    moveTo(at);
  }

  function moveTo(to) {
    if (drawing !== null) {
      paint.globalCompositeOperation = erasing ? "destination-out" : "source-over";
      paint.strokeStyle = "white";
      paint.lineCap = "round";
      paint.lineWidth = model.get("brush");
      paint.beginPath();
      paint.moveTo(at.x, at.y);
      paint.lineTo(to.x + 0.01, to.y); // a dot, too, has a length
      paint.stroke();
    }
    at = to;
  }

  function end(by) {
    if (drawing !== by) return;
    drawing = null;
    send();
  }

  function back() {
    if (drawing !== null || !undo.length) return;
    paint.putImageData(undo.pop(), 0, 0);
    send();
  }

  function clear() {
    if (drawing !== null) return;
    keep();
    paint.clearRect(0, 0, width, height);
    send();
  }

  function resize(to) {
    model.set("brush", Math.min(Math.max(to, 2), Math.round(Math.max(width, height) / 2)));
    model.save_changes();
  }

  function use(erase) {
    erasing = erase;
    brush.setAttribute("aria-pressed", String(!erase));
    eraser.setAttribute("aria-pressed", String(erase));
    draw();
  }

  function position(event) {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || drawing !== null) return; // another button, or a second finger
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    at = position(event);
    begin(event.pointerId);
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drawing !== null && drawing !== event.pointerId) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of events.length ? events : [event]) moveTo(position(each));
    draw();
  });
  canvas.addEventListener("pointerup", (event) => end(event.pointerId));
  canvas.addEventListener("pointercancel", (event) => end(event.pointerId));

  const step = Math.max(1, Math.round(Math.max(width, height) / 64));
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (moves[key]) {
      const [x, y] = moves[key];
      moveTo({ x: Math.min(Math.max(at.x + x, 0), width), y: Math.min(Math.max(at.y + y, 0), height) });
    } else if (key === " ") {
      if (drawing === null) begin("space");
    } else if (key === "+" || key === "=") resize(model.get("brush") + 2);
    else if (key === "-") resize(model.get("brush") - 2);
    else if (key === "e") use(!erasing);
    else if (key === "u") back();
    else if (key === "c") clear();
    else return; // not ours
    event.preventDefault();
    event.stopPropagation();
    draw();
  });
  canvas.addEventListener("keyup", (event) => {
    if (event.key === " ") end("space");
  });
  canvas.addEventListener("blur", () => end("space"));

  const brush = button("Brush", "Paint the part that is to be made anew (E switches)", () => use(false));
  const eraser = button("Erase", "Take paint away (E switches)", () => use(true));
  const size = element("input", {
    type: "range",
    min: 2,
    max: Math.round(Math.max(width, height) / 2),
    title: "Width of the brush (plus and minus)",
    "aria-label": "Width of the brush",
  });
  size.addEventListener("input", () => resize(Number(size.value)));

  const undoer = button("Undo", "Undo the last stroke (U)", back);
  const bar = element("div", { class: "ldm-painter-bar" }, brush, eraser, size, undoer, button("Clear", "Clear (C)", clear), status);
  const help = element("details", { class: "ldm-painter-help" }, element("summary", {}, "Keys"), KEYS);
  // JupyterLab would take C, E, the arrows and the space bar for its own commands:
  const root = element("div", { class: "ldm-painter", "data-lm-suppress-shortcuts": "true" }, canvas, bar, help);
  el.append(root);

  const sized = () => {
    size.value = model.get("brush");
    draw();
  };
  const changed = () => {
    image.src = "data:image/png;base64," + model.get("image");
  };
  image.onload = draw;
  model.on("change:mask", receive);
  model.on("change:brush", sized);
  model.on("change:image", changed);
  use(false);
  sized();
  changed();
  tell();
  receive();
  return () => {
    model.off("change:mask", receive);
    model.off("change:brush", sized);
    model.off("change:image", changed);
  };
}

export default { render };
