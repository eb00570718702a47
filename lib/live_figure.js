// What a page runs for a live figure: plotly's own model and view, from one copy of plotly for the whole page.
//
// Plotly's FigureWidget brings its five megabytes with every figure, and a page starts them all before it shows one.
// Two clocks of two seconds run meanwhile: a figure that starts later never hears a message again (anywidget's
// runtime), and a page too busy to look for it in time shows "model not found" (ipywidgets' get_model). Here a figure
// starts at once, plotly follows when the first one is shown, and what arrives before is kept and handed over.

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

export default () => {
  let model;
  let figure;
  const early = [];
  const keepers = MESSAGES.map((name) => [
    `change:${name}`,
    () => {
      early.push([name, model.get(name)]);
      begin().catch(() => {}); // `render` shows what went wrong
    },
  ]);

  function begin() {
    return (figure ??= start());
  }

  async function start() {
    const widget = await (await plotly(model)).default();
    const listeners = {};
    let message = [];
    await widget.initialize({
      model: {
        get: (name) => (name === message[0] ? message[1] : model.get(name)),
        set: (name, value) => UNREAD.has(name) || model.set(name, value),
        save_changes: () => model.save_changes(),
        on: (event, listener) => {
          listeners[event] = listener;
          model.on(event, listener);
        },
      },
    });
    keepers.forEach(([event, keep]) => model.off(event, keep));
    for (message of early) listeners[`change:${message[0]}`]();
    message = [];
    return widget;
  }

  return {
    initialize(context) {
      model = context.model;
      keepers.forEach(([event, keep]) => model.on(event, keep));
    },
    render: async ({ el }) => (await begin()).render({ el }),
  };
};
