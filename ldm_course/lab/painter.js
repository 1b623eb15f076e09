// The mask painter: a picture, and a mask over it that pointer and keys can paint. The mask travels as a PNG.

const SHOWN = 384; // side on the page, in CSS pixels
const TINT = [230, 97, 1]; // orange over the part to be painted anew

function button(text, title, press) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.title = title;
  element.addEventListener("click", press);
  return element;
}

function render({ model, el }) {
  const [width, height] = model.get("size");
  const scale = SHOWN / Math.max(width, height);
  const root = document.createElement("div");
  root.className = "ldm-painter";

  const canvas = document.createElement("canvas"); // what one sees
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute(
    "aria-label",
    "Mask painter. Arrow keys move the brush, space paints or erases, plus and minus change its size, " +
      "E switches to erasing and back, U undoes, C clears."
  );
  const mask = document.createElement("canvas"); // the mask itself, in the picture's own pixels
  mask.width = width;
  mask.height = height;
  const picture = new Image();
  const pen = canvas.getContext("2d");
  const paint = mask.getContext("2d", { willReadFrequently: true });
  const status = document.createElement("span");
  status.setAttribute("aria-live", "polite");

  let erasing = false;
  let at = { x: width / 2, y: height / 2 }; // where the brush is
  let last = null; // where the stroke was before, while one is being drawn
  let sent = ""; // the mask as Python knows it
  const undo = [];

  function draw() {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const tinted = new ImageData(width, height);
    const alpha = paint.getImageData(0, 0, width, height).data;
    for (let i = 0; i < alpha.length; i += 4) {
      tinted.data.set([...TINT, Math.round(0.6 * alpha[i + 3])], i);
    }
    const layer = document.createElement("canvas");
    layer.width = width;
    layer.height = height;
    layer.getContext("2d").putImageData(tinted, 0, 0);
    pen.drawImage(layer, 0, 0, canvas.width, canvas.height);
    pen.beginPath();
    pen.arc(at.x * scale, at.y * scale, (model.get("brush") * scale) / 2, 0, 2 * Math.PI);
    pen.lineWidth = 3;
    pen.strokeStyle = "white";
    pen.stroke();
    pen.lineWidth = 1.5;
    pen.strokeStyle = erasing ? "#5e3c99" : "black";
    pen.stroke();
  }

  function stroke(from, to) {
    paint.globalCompositeOperation = erasing ? "destination-out" : "source-over";
    paint.strokeStyle = "white";
    paint.lineCap = "round";
    paint.lineWidth = model.get("brush");
    paint.beginPath();
    paint.moveTo(from.x, from.y);
    paint.lineTo(to.x + 0.01, to.y); // a dot, too, has a length
    paint.stroke();
  }

  function keep() {
    undo.push(paint.getImageData(0, 0, width, height));
    if (undo.length > 50) undo.shift();
  }

  function send() {
    sent = mask.toDataURL("image/png").split(",")[1];
    model.set("mask", sent);
    model.save_changes();
    const alpha = paint.getImageData(0, 0, width, height).data;
    let count = 0;
    for (let i = 3; i < alpha.length; i += 4) count += alpha[i] > 127;
    status.textContent = count ? Math.round((100 * count) / (width * height)) + "% masked" : "nothing masked";
    draw();
  }

  function receive() {
    const text = model.get("mask");
    if (text === sent) return;
    sent = text;
    paint.clearRect(0, 0, width, height);
    undo.length = 0;
    if (!text) return draw();
    const image = new Image();
    image.onload = () => {
      paint.globalCompositeOperation = "source-over";
      paint.drawImage(image, 0, 0);
      draw();
    };
    image.src = "data:image/png;base64," + text;
  }

  function position(event) {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    keep();
    at = last = position(event);
    stroke(last, at);
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of events.length ? events : [event]) {
      at = position(each);
      if (last) {
        stroke(last, at);
        last = at;
      }
    }
    draw();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (last) {
        last = null;
        send();
      }
    });
  }

  function back() {
    if (!undo.length) return;
    paint.putImageData(undo.pop(), 0, 0);
    send();
  }

  function clear() {
    keep();
    paint.clearRect(0, 0, width, height);
    send();
  }

  function resize(by) {
    model.set("brush", Math.min(Math.max(model.get("brush") + by, 2), Math.max(width, height)));
    model.save_changes();
  }

  function use(erase) {
    erasing = erase;
    brush.setAttribute("aria-pressed", String(!erase));
    eraser.setAttribute("aria-pressed", String(erase));
    draw();
  }

  const step = Math.max(1, Math.round(Math.max(width, height) / 64));
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (moves[key]) {
      const [x, y] = moves[key];
      const before = at;
      at = { x: Math.min(Math.max(at.x + x, 0), width), y: Math.min(Math.max(at.y + y, 0), height) };
      if (last) stroke(before, (last = at)); // space is held down
    } else if (key === " ") {
      if (!last) {
        keep();
        last = at;
        stroke(at, at);
      }
    } else if (key === "+" || key === "=") resize(2);
    else if (key === "-") resize(-2);
    else if (key === "e") use(!erasing);
    else if (key === "u") back();
    else if (key === "c") clear();
    else return; // not ours: JupyterLab may have it
    event.preventDefault();
    event.stopPropagation();
    draw();
  });
  canvas.addEventListener("keyup", (event) => {
    if (event.key === " " && last) {
      last = null;
      send();
    }
  });

  const brush = button("Brush", "Paint the part that is to be made anew (E switches)", () => use(false));
  const eraser = button("Erase", "Take paint away (E switches)", () => use(true));
  const size = document.createElement("input");
  size.type = "range";
  size.min = 2;
  size.max = Math.round(Math.max(width, height) / 2);
  size.title = "Width of the brush (plus and minus)";
  size.setAttribute("aria-label", "Width of the brush");
  size.addEventListener("input", () => resize(Number(size.value) - model.get("brush")));

  const bar = document.createElement("div");
  bar.className = "ldm-painter-bar";
  bar.append(brush, eraser, size, button("Undo", "Undo (U)", back), button("Clear", "Clear (C)", clear), status);
  root.append(canvas, bar);
  el.append(root);

  const sized = () => {
    size.value = model.get("brush");
    draw();
  };
  const shown = () => {
    picture.src = "data:image/png;base64," + model.get("picture");
  };
  picture.onload = draw;
  model.on("change:mask", receive);
  model.on("change:brush", sized);
  model.on("change:picture", shown);
  use(false);
  sized();
  shown();
  receive();
  return () => {
    model.off("change:mask", receive);
    model.off("change:brush", sized);
    model.off("change:picture", shown);
  };
}

export default { render };
