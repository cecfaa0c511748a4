// The page: pictures in, layers out. The network is in worker.js.

const $ = (id) => document.getElementById(id);
const stage = $("stage"), photo = $("photo").getContext("2d"), layer = $("layer").getContext("2d");
// Transparent parts of a picture are black.
const grab = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true, alpha: false });
const about = await (await fetch("model.json")).json();
const SMALLEST = about.smallest, colors = about.classes.map((c) => c.color);
const state = { result: null, source: null, name: "picture", alone: null, point: null, turn: 0, stream: null };

// ---- what is said ----------------------------------------------------------------------------------------------------

const status = (text) => { $("status").textContent = text; };
function alarm(text) { $("alert").textContent = text; $("alert").hidden = !text; }
function waiting(text, share) {
  $("wait").hidden = text === null;
  if (text === null) return;
  $("doing").textContent = text;
  if (share == null) $("progress").removeAttribute("value"); else $("progress").value = share;
}

// ---- the network -----------------------------------------------------------------------------------------------------

const worker = new Worker("worker.js", { type: "module" });
const pending = new Map();
let number = 0, ready;
const loaded = new Promise((resolve) => { ready = resolve; });
worker.onmessage = ({ data }) => {
  if (data.type === "progress") waiting("Loading the network", data.share);
  else if (data.type === "starting") waiting("Starting the network", null);
  else if (data.type === "ready") { $("where").textContent = data.where; document.body.dataset.ready = "true"; ready(); }
  else if (data.type === "error" && data.id === undefined) { waiting(null); alarm(`The network cannot run in this browser: ${data.text}`); }
  else { const { resolve, reject } = pending.get(data.id); pending.delete(data.id); data.type === "done" ? resolve(data) : reject(new Error(data.text)); }
};
worker.onerror = (event) => { waiting(null); alarm(`The network cannot run in this browser: ${event.message ?? "its thread did not start"}`); };
worker.postMessage({ type: "load", about, device: new URLSearchParams(location.search).get("device") });

const computed = (image) => new Promise((resolve, reject) => {
  pending.set(++number, { resolve, reject });
  worker.postMessage({ type: "run", id: number, pixels: image.data, width: image.width, height: image.height }, [image.data.buffer]);
});

/** Width and height that the network is to see. */
function wanted(width, height) {
  if (about.size) return [about.size[1], about.size[0]];
  const most = Number($("side").value), scale = most ? Math.min(1, most / Math.max(width, height)) : 1;
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

/** Segment what can be drawn: a bitmap or the camera. What another picture has overtaken is not shown. */
async function segment(source, width, height, quiet = false) {
  const [w, h] = wanted(width, height), turn = ++state.turn;
  if (Math.min(w, h) < SMALLEST) return alarm(`The picture has ${width}×${height} pixels: the network needs ${SMALLEST} on each side.`);
  alarm("");
  if (!quiet) waiting("Computing", null);
  grab.canvas.width = w; grab.canvas.height = h;
  grab.imageSmoothingQuality = "high";
  grab.drawImage(source, 0, 0, w, h);
  const image = grab.getImageData(0, 0, w, h), still = quiet ? new ImageData(image.data.slice(), w, h) : image;
  const seen = () => { photo.canvas.width = w; photo.canvas.height = h; photo.putImageData(still, 0, 0); shape(w, h); };
  // Frames of the camera are shown when their layer is there.
  if (!quiet) seen();
  // What belongs to the former picture is not to lie over this one.
  if (!quiet) layer.canvas.style.visibility = "hidden";
  const result = await computed(image);
  if (turn !== state.turn) return;
  if (quiet) seen();
  layer.canvas.style.visibility = "";
  state.result = result;
  $("ms").textContent = `${result.ms.toFixed(result.ms < 100 ? 1 : 0)} ms`;
  $("size").textContent = `${w} × ${h}`;
  $("save").disabled = false;
  waiting(null);
  counted();
  draw();
  pointed();
}

function shape(w, h) {
  stage.style.aspectRatio = `${w} / ${h}`;
  // Pictures that stand upright have to fit on the screen, too.
  stage.style.width = `min(100%, calc(64vh * ${w / h}))`;
}

async function show(blob, name) {
  try {
    stop();
    // As `gscnn predict` reads pictures: upright, and without a colour profile.
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    state.source = bitmap;
    state.name = name;
    await loaded;
    await segment(bitmap, bitmap.width, bitmap.height);
    const seen = shares().slice(0, 3).map(([k, share]) => `${about.classes[k].name} ${percent(share)}`);
    status(`Segmented ${name}: ${seen.join(", ")}`);
  } catch (error) {
    waiting(null);
    alarm(blob && /^image\//.test(blob.type || "image/") ? `${name} cannot be shown: ${error.message}` : `${name} is no picture.`);
  }
}

// ---- layers ----------------------------------------------------------------------------------------------------------

const names = [["labels", "Classes"], ...(about.boundary ? [["boundary", "Boundaries"]] : []), ...about.gates.map((gate, n) => [gate, `Gate ${n + 1}`])];
$("layers").innerHTML = "";
for (const [value, text] of names) {
  const label = document.createElement("label"), input = document.createElement("input"), span = document.createElement("span");
  Object.assign(input, { type: "radio", name: "layer", value, checked: value === "labels" });
  span.textContent = text;
  input.addEventListener("change", draw);
  label.append(input, span);
  $("layers").append(label);
}
const chosen = () => document.querySelector("input[name=layer]:checked").value;

// Inferno of matplotlib, at every eighth.
const STOPS = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];
const HEAT = Array.from({ length: 256 }, (_, v) => {
  const at = (v / 255) * 8, k = Math.min(7, Math.floor(at)), t = at - k;
  return STOPS[k].map((c, i) => c + t * (STOPS[k + 1][i] - c));
});

function painted({ data, width, height }, color) {
  const image = new ImageData(width, height), out = image.data;
  for (let i = 0, o = 0; i < data.length; i++, o += 4) {
    const c = color(data[i]);
    if (c) { out[o] = c[0]; out[o + 1] = c[1]; out[o + 2] = c[2]; out[o + 3] = 255; }
  }
  return image;
}

function draw() {
  const { result, alone } = state;
  if (!result) return;
  const kind = chosen(), canvas = layer.canvas;
  let image;
  if (kind === "labels") image = painted(result.labels, (k) => (alone === null || alone === k ? colors[k] : null));
  else if (kind === "boundary") image = painted(result.boundary, (p) => HEAT[Math.round(255 * Math.min(1, Math.max(0, p)))]);
  else {
    const map = result.gates[about.gates.indexOf(kind)];
    let low = Infinity, high = -Infinity;
    for (const v of map.data) { if (v < low) low = v; if (v > high) high = v; }
    image = painted(map, (v) => HEAT[Math.round((255 * (v - low)) / (high - low || 1))]);
  }
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.style.imageRendering = kind === "labels" ? "pixelated" : "auto";
  layer.putImageData(image, 0, 0);
  canvas.dataset.layer = kind;
}

const opacity = () => { $("layer").style.opacity = $("opacity").value / 100; $("percent").textContent = `${$("opacity").value} %`; };
$("opacity").addEventListener("input", opacity);
opacity();

// ---- classes ---------------------------------------------------------------------------------------------------------

const percent = (share) => (share === 0 ? "" : share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);
about.classes.forEach(({ name, color }, k) => {
  const item = document.createElement("li"), button = document.createElement("button"), swatch = document.createElement("i");
  const text = document.createElement("span"), share = document.createElement("b");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  swatch.style.background = `rgb(${color})`;
  text.textContent = name;
  button.append(swatch, text, share);
  button.addEventListener("click", () => {
    state.alone = state.alone === k ? null : k;
    document.querySelectorAll("#classes button").forEach((b, n) => b.setAttribute("aria-pressed", String(state.alone === n)));
    document.querySelector("input[name=layer][value=labels]").checked = true;
    draw();
  });
  item.append(button);
  $("classes").append(item);
});

function shares() {
  const count = new Array(colors.length).fill(0), { data } = state.result.labels;
  for (const k of data) if (k < count.length) count[k]++;
  return count.map((n, k) => [k, n / data.length]).sort((a, b) => b[1] - a[1]);
}
function counted() {
  const buttons = document.querySelectorAll("#classes button");
  for (const [k, share] of shares()) {
    buttons[k].querySelector("b").textContent = percent(share);
    buttons[k].classList.toggle("none", share === 0);
  }
}

// ---- the pointer -----------------------------------------------------------------------------------------------------

function pointed() {
  const { point, result } = state, tip = $("tip"), cross = $("cross");
  tip.hidden = cross.hidden = !point || !result;
  if (tip.hidden) return;
  const { data, width, height } = result.labels;
  const x = Math.min(width - 1, Math.floor(point.x * width)), y = Math.min(height - 1, Math.floor(point.y * height));
  const k = data[y * width + x], name = about.classes[k]?.name ?? `class ${k}`;
  const text = result.boundary ? `${name}, boundary ${(100 * result.boundary.data[y * width + x]).toFixed(0)} %` : name;
  tip.textContent = name;
  tip.style.setProperty("--swatch", `rgb(${colors[k] ?? [255, 255, 255]})`);
  // Within the picture, whose edges cut it off.
  const half = tip.offsetWidth / 2 + 4, left = point.x * stage.clientWidth, top = point.y * stage.clientHeight;
  tip.style.left = `${Math.min(stage.clientWidth - half, Math.max(half, left))}px`;
  tip.style.top = `${top < 52 ? top + 76 : top}px`;
  cross.hidden = !point.keys;
  cross.style.left = `${100 * point.x}%`;
  cross.style.top = `${100 * point.y}%`;
  if ($("under").textContent !== text) $("under").textContent = text;
}
const inside = (v) => Math.min(0.9999, Math.max(0, v));
stage.addEventListener("pointermove", (event) => {
  const box = stage.getBoundingClientRect();
  state.point = { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) };
  pointed();
});
stage.addEventListener("pointerdown", (event) => stage.dispatchEvent(new PointerEvent("pointermove", event)));
stage.addEventListener("pointerleave", () => { state.point = null; pointed(); });
stage.addEventListener("keydown", (event) => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === " ") { stage.classList.add("photo"); event.preventDefault(); }
  if (!move) return;
  event.preventDefault();
  const step = event.shiftKey ? 0.1 : 0.01, from = state.point ?? { x: 0.5, y: 0.5 };
  state.point = { x: inside(from.x + step * move[0]), y: inside(from.y + step * move[1]), keys: true };
  pointed();
});
stage.addEventListener("keyup", (event) => { if (event.key === " ") stage.classList.remove("photo"); });
stage.addEventListener("blur", () => { stage.classList.remove("photo"); state.point = null; pointed(); });

// ---- pictures: file, drop, paste, camera, example --------------------------------------------------------------------

$("file").addEventListener("change", (event) => { const [file] = event.target.files; if (file) show(file, file.name); event.target.value = ""; });
let depth = 0;
addEventListener("dragenter", (event) => { event.preventDefault(); depth++; document.body.classList.add("dragging"); });
addEventListener("dragleave", () => { if (--depth <= 0) { depth = 0; document.body.classList.remove("dragging"); } });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) show(file, file.name); else alarm("That was no file: drop a picture that lies on this device.");
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
  if (file) show(file, "pasted picture"); else alarm("There is no picture in the clipboard.");
});
$("side").addEventListener("change", async () => {
  const { source } = state;
  try {
    if (source) await segment(source, source.width, source.height);
  } catch (error) {
    waiting(null);
    alarm(`The picture cannot be segmented at this size: ${error.message}`);
  }
});
$("side").closest("label").hidden = Boolean(about.size);

const example = async () => show(await (await fetch(about.example)).blob(), "example");
$("example").addEventListener("click", example);
$("example").hidden = !about.example;

const video = $("video");
function stop() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Camera";
}
async function camera() {
  if (state.stream) return stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 640 } }, audio: false });
    state.stream = stream;
    state.source = null;
    $("camera").setAttribute("aria-pressed", "true");
    $("camera").textContent = "Stop the camera";
    video.srcObject = stream;
    await video.play();
    await loaded;
    status("Camera on");
    state.name = "camera";
    while (state.stream === stream) {
      if (video.videoWidth) await segment(video, video.videoWidth, video.videoHeight, true);
      await new Promise(requestAnimationFrame);
    }
    status("Camera off");
  } catch (error) {
    stop();
    alarm(`The camera cannot be used: ${error.message}`);
  }
}
$("camera").addEventListener("click", camera);
if (!navigator.mediaDevices?.getUserMedia) { $("camera").disabled = true; $("camera").title = "Browsers give the camera to https pages and localhost alone"; }

// ---- the label map as PNG: one byte a pixel, the number of its class, as `gscnn predict` writes it --------------------

const CRC = Uint32Array.from({ length: 256 }, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1; return n; });
function chunk(kind, body) {
  const bytes = new Uint8Array(12 + body.length), view = new DataView(bytes.buffer);
  view.setUint32(0, body.length);
  bytes.set([...kind].map((c) => c.charCodeAt(0)), 4);
  bytes.set(body, 8);
  let crc = ~0;
  for (const b of bytes.subarray(4, 8 + body.length)) crc = CRC[(crc ^ b) & 255] ^ (crc >>> 8);
  view.setUint32(8 + body.length, ~crc >>> 0);
  return bytes;
}
async function png({ data, width, height }) {
  const rows = new Uint8Array((width + 1) * height), header = new DataView(new ArrayBuffer(13));
  for (let y = 0; y < height; y++) rows.set(data.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const body = new Uint8Array(await packed.arrayBuffer());
  const mark = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  return new Blob([mark, chunk("IHDR", new Uint8Array(header.buffer)), chunk("IDAT", body), chunk("IEND", new Uint8Array())], { type: "image/png" });
}
$("save").addEventListener("click", async () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await png(state.result.labels));
  link.download = `${state.name.replace(/\.\w+$/, "")}_labels.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  status("Label map saved");
});

if (about.example) await example(); else { await loaded; waiting(null); }
