// Draws figures from frames (columns of numbers). Shared by the notebook widget and the report.

const make = (tag, className, parent, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text; // never markup: text may come from a model
  parent?.append(element);
  return element;
};

const rowsOf = (frame) => {
  const names = Object.keys(frame ?? {});
  const length = names.length ? frame[names[0]].length : 0;
  return Array.from({ length }, (_, i) => Object.fromEntries(names.map((name) => [name, frame[name][i]])));
};

// A tooltip inside our own root: it follows the theme, works in a shadow root, and holds text only.
const tooltipIn = (root) => (_handler, event, _item, value) => {
  let tip = root.querySelector(".lab-tip");
  if (value === null || value === undefined || value === "") return tip?.remove();
  tip ??= make("div", "lab-tip", root);
  const pairs = typeof value === "object" ? Object.entries(value) : [["", value]];
  tip.replaceChildren(
    ...pairs.map(([key, text]) => {
      const line = make("div");
      make("span", "", line, key);
      make("b", "", line, String(text));
      return line;
    }),
  );
  const box = root.getBoundingClientRect();
  const x = Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth - 6);
  tip.style.transform = `translate(${Math.max(0, x)}px, ${event.clientY - box.top + 14}px)`;
};

// One figure: embedded once; later frames replace its data, at most once an animation frame.
async function drawFigure(host, figure, spec, frames, root) {
  const box = make("figure", "lab-figure", host);
  const head = make("figcaption", "", box);
  const title = make("b", "", head);
  const caption = make("span", "", head);
  const canvas = make("div", "lab-canvas", box);
  const options = { actions: false, renderer: "svg", ast: true, tooltip: tooltipIn(root) };
  const wide = () => Math.max(120, Math.floor(canvas.clientWidth || box.clientWidth));
  const datasets = Object.fromEntries(figure.data.map((name) => [name, rowsOf(frames[name])]));
  const { view } = await vegaEmbed(canvas, { ...structuredClone(spec), datasets, width: wide() }, options);
  // A notebook's output changes width without the window doing so.
  const sized = new ResizeObserver(() => Math.abs(view.width() - wide()) > 1 && view.width(wide()).runAsync());
  sized.observe(canvas);
  let waiting = null;
  const fill = async () => {
    const [words, data] = waiting;
    waiting = null;
    title.textContent = words.title;
    caption.textContent = words.caption;
    for (const name of words.data) {
      view.change(name, view.changeset().remove(() => true).insert(rowsOf(data[name])));
    }
    await view.width(wide()).resize().runAsync(); // resize: else labels are clipped when they grow
    box.dataset.points = String(data[words.data[0]]?.[Object.keys(data[words.data[0]])[0]]?.length ?? 0);
  };
  const update = (words, data) => {
    const queued = waiting !== null;
    waiting = [words, data];
    if (!queued) requestAnimationFrame(fill);
  };
  update(figure, frames);
  return { box, update, finalize: () => { sized.disconnect(); view.finalize(); box.remove(); } };
}
