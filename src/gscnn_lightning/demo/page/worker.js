// The network, in a thread of its own, so that the page answers while it computes.

let session = null, about = null, where = "";

const say = (type, content = {}, transfer = []) => postMessage({ type, ...content }, transfer);

/** Bytes of a file of this folder, with progress from 0 to 1. */
async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} cannot be loaded (${answer.status})`);
  const total = Number(answer.headers.get("content-length")), parts = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    say("progress", { share: total ? Math.min(1, size / total) : null });
  }
  const bytes = new Uint8Array(size);
  parts.reduce((place, part) => (bytes.set(part, place), place + part.length), 0);
  return bytes;
}

async function open(kind, bytes) {
  const ort = await import(kind === "webgpu" ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  const base = new URL("ort/", import.meta.url).href;
  const name = kind === "webgpu" ? "ort-wasm-simd-threaded.asyncify" : "ort-wasm-simd-threaded";
  ort.env.wasm.wasmPaths = { mjs: `${base}${name}.mjs`, wasm: `${base}${name}.wasm` };
  // Threads share memory, which browsers allow only pages with the two headers that `gscnn demo --serve` sends.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, Math.max(1, (navigator.hardwareConcurrency || 2) >> 1)) : 1;
  ort.env.logLevel = "error";
  const made = await ort.InferenceSession.create(bytes, { executionProviders: [kind], graphOptimizationLevel: "all", logSeverityLevel: 3 });
  const threads = ort.env.wasm.numThreads;
  where = kind === "webgpu" ? "WebGPU" : `WebAssembly, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
  return { ort, made, kind };
}

async function load(given) {
  about = given.about;
  const bytes = await fetched(about.model);
  say("starting");
  let wanted = given.device === "wasm" || !about.webgpu ? ["wasm"] : ["webgpu", "wasm"];
  if (given.device !== "webgpu" && wanted.length > 1) {
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    // One that is made of software is slower than WebAssembly.
    if (!adapter || adapter.info?.isFallbackAdapter || adapter.isFallbackAdapter) wanted = ["wasm"];
  }
  let problem = null;
  for (const kind of wanted) {
    try {
      session = await open(kind, bytes);
      // What an adapter cannot compute shows only when it computes.
      const [height, width] = about.size ?? [64, 64];
      if (kind === "webgpu") await run({ pixels: new Uint8ClampedArray(4 * height * width).fill(127), width, height });
      say("ready", { where });
      return;
    } catch (error) {
      problem = error;
    }
  }
  throw problem;
}

/** RGBA pixels as the network takes them: bytes of RGB, pixel by pixel. */
function tensor(pixels, width, height) {
  const data = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < data.length; from += 4) {
    data[to++] = pixels[from];
    data[to++] = pixels[from + 1];
    data[to++] = pixels[from + 2];
  }
  return { [about.input]: new session.ort.Tensor("uint8", data, [1, height, width, 3]) };
}

async function run({ pixels, width, height }) {
  const inputs = tensor(pixels, width, height), begin = performance.now();
  const outputs = await session.made.run(inputs, about.outputs);
  const read = async (name) => {
    const found = outputs[name];
    if (!found) return null;
    const data = await found.getData(), [h, w] = found.dims.slice(-2);
    return { data, width: w, height: h };
  };
  const labels = await read("labels");
  const ms = performance.now() - begin;
  const boundary = await read("boundary_prob"), gates = [];
  for (const name of about.gates) gates.push(await read(name));
  for (const key of Object.keys(outputs)) outputs[key].dispose?.();
  return { ms, labels, boundary, gates };
}

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "load") return await load(data);
    const found = await run(data);
    const buffers = [found.labels, found.boundary, ...found.gates].filter(Boolean).map((map) => map.data.buffer);
    say("done", { id: data.id, ...found }, [...new Set(buffers)]);
  } catch (error) {
    say("error", { id: data.id, text: String(error?.message ?? error).split("\n")[0].slice(0, 300) });
  }
};
