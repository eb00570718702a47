// What a page runs for a live figure: plotly's own model and view, from one copy of plotly for the whole page.
//
// Plotly's FigureWidget brings its five megabytes with every figure, and a page starts them all before it shows one.
// Two clocks of two seconds run meanwhile: a figure that starts later never hears a message again (anywidget's
// runtime), and a page too busy to look for it in time shows "model not found" (ipywidgets' get_model). Here a figure
// starts at once and plotly follows when the first one is shown. What comes is unpacked and handed to plotly in its
// order.

const MESSAGES = [
  "addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update", "animate",
  "removeLayoutProps", "removeTraceProps",
].map((name) => `_py2js_${name}`);

// After each change plotly sends back all properties that it has filled in by itself; nobody in the kernel asks.
const UNREAD = new Set(["_js2py_traceDeltas", "_js2py_widget_layoutDelta"]);

async function read(model) {
  const library = await model.widget_manager.get_model(model.get("_library").slice("IPY_MODEL_".length));
  const url = URL.createObjectURL(new Blob([library.get("value")], { type: "text/javascript" }));
  try {
    return await import(url);
  } finally {
    URL.revokeObjectURL(url);
  }
}

function plotly(model) {
  const copies = (globalThis.paperplayPlotly ??= {});
  const version = model.get("_library_version");
  copies[version] ??= read(model).catch((error) => {
    delete copies[version]; // the next figure tries again
    throw error;
  });
  return copies[version];
}

async function inflated(buffer) {
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new DataView(await new Response(stream).arrayBuffer());
}

// Plotly's model makes a typed array of the whole of each buffer, and knows rows of numbers only: a map becomes many.
async function unpackedArray({ buffer, dtype, shape, deflated }) {
  const { buffer: bytes, byteOffset, byteLength } = deflated ? await inflated(buffer) : buffer;
  const rows = shape.length === 1 ? 1 : shape[0];
  const length = byteLength / rows;
  const all = Array.from({ length: rows }, (_, number) => {
    const start = byteOffset + number * length;
    return { buffer: new DataView(bytes.slice(start, start + length)), dtype, shape: shape.slice(-1) };
  });
  return shape.length === 1 ? all[0] : all;
}

// Plotly's model takes the word for "as it was" for a value: here it becomes one that says nothing.
async function unpacked(value) {
  if (value === "_undefined_") return undefined;
  if (Array.isArray(value)) return Promise.all(value.map(unpacked));
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  if (value.buffer && value.dtype && value.shape) return unpackedArray(value);
  const pairs = Object.entries(value).map(async ([name, inner]) => [name, await unpacked(inner)]);
  return Object.fromEntries(await Promise.all(pairs));
}

export default () => {
  let model;
  let figure;
  let message = [];
  let handed = Promise.resolve();
  const listeners = {};

  function inOrder(step) {
    handed = handed.then(step).catch(() => {}); // `render` shows what went wrong
  }

  // In place: plotly's model changes these traces with each message, and a page saves what it finds there.
  async function unpackTraces() {
    const traces = model.get("_widget_data");
    Object.assign(traces, await unpacked(traces));
  }

  function begin() {
    return (figure ??= start());
  }

  async function start() {
    const widget = await (await plotly(model)).default();
    await unpackTraces();
    await widget.initialize({
      model: {
        get: (name) => (name === message[0] ? message[1] : model.get(name)),
        set: (name, value) => UNREAD.has(name) || model.set(name, value),
        save_changes: () => model.save_changes(),
        on: (event, listener) => (listeners[event] ??= []).push(listener),
      },
    });
    return widget;
  }

  return {
    initialize(context) {
      model = context.model;
      model.on("change:_widget_data", () => inOrder(unpackTraces));
      for (const name of MESSAGES)
        model.on(`change:${name}`, () => {
          const packed = model.get(name);
          if (packed === null) return;
          inOrder(async () => {
            await begin();
            message = [name, await unpacked(packed)];
            (listeners[`change:${name}`] ?? []).forEach((listener) => listener());
            message = [];
          });
        });
    },
    async render({ el }) {
      const widget = await begin();
      await handed;
      return widget.render({ el });
    },
  };
};
