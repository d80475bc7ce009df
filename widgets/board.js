// The lab's one widget: screens of headlines, charts, tables and notes, and the knobs of an explorer.
// Everything that arrives is text and is set as textContent.

const isDark = () => {
  const body = document.body;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  const marks = [body, document.documentElement];
  if (marks.some((e) => e.classList.contains("dark") || e.classList.contains("vscode-dark"))) return true;
  const named = body.dataset.theme ?? body.dataset.vscodeThemeKind;
  return named ? named.includes("dark") : false;
};

const statusIn = (parent, status) => {
  const chip = make("span", `lab-status ${status.tone}`, parent);
  make("span", "", chip, status.glyph).setAttribute("aria-hidden", "true");
  make("span", "", chip, status.word);
  return chip;
};

const headlinesOf = (headlines) =>
  headlines.map(({ label, value, note, tone }) => {
    const card = make("div");
    make("dt", "", card, label);
    make("dd", `value ${tone}`, card, value);
    if (note) make("dd", `note ${tone}`, card, note);
    return card;
  });

const tableOf = ({ title, columns, rows, caption }) => {
  const box = make("div", "lab-scroll");
  const table = make("table", "", box);
  make("caption", "", table, caption ? `${title}: ${caption}` : title);
  const head = make("tr", "", make("thead", "", table));
  columns.forEach((name) => (make("th", "", head, name).scope = "col"));
  const body = make("tbody", "", table);
  rows.forEach((row) => {
    const line = make("tr", "", body);
    row.forEach((cell, i) => {
      const made = make(i ? "td" : "th", "", line, cell);
      if (!i) made.scope = "row";
    });
  });
  if (rows.length <= 8) return box;
  const fold = make("details");
  make("summary", "", fold, title);
  fold.append(box);
  fold.dataset.title = title;
  return fold;
};

// Sliders may be logarithmic: the input moves over 0..1000, the knob over min..max.
const GRAIN = 1000;
const position = (knob, value) =>
  knob.log ? (GRAIN * Math.log(value / knob.min)) / Math.log(knob.max / knob.min) : value;
const quantity = (knob, at) => {
  if (!knob.log) return Number(at);
  const value = knob.min * (knob.max / knob.min) ** (at / GRAIN);
  if (knob.base === 2) return 2 ** Math.round(Math.log2(value));
  const grain = 10 ** (Math.floor(Math.log10(value)) - 1);
  const rounded = Math.round(value / grain) * grain;
  return Math.min(knob.max, Math.max(knob.min, knob.whole ? Math.round(rounded) : rounded));
};
const SUFFIXES = [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]];
const spoken = (knob, value) => {
  const [suffix, size] = (knob.si && SUFFIXES.find(([, size]) => value >= size)) || ["", 1];
  const number = (value / size).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  return `${number}${suffix}${knob.unit ? " " + knob.unit : ""}`;
};

let serial = 0;
function knobIn(form, knob, value, changed) {
  const box = make("div", "knob", form);
  const id = `lab-knob-${serial++}`;
  make("label", "", box, knob.label).htmlFor = id;
  if (knob.choices) {
    const select = make("select", "", box);
    select.id = id;
    knob.choices.forEach((choice) => (make("option", "", select, String(choice)).value = JSON.stringify(choice)));
    select.value = JSON.stringify(value);
    select.addEventListener("change", () => changed(JSON.parse(select.value)));
    return (next) => (select.value = JSON.stringify(next));
  }
  const output = make("output", "", box);
  const input = make("input", "", box);
  const range = knob.log ? { min: 0, max: GRAIN, step: 1 } : { min: knob.min, max: knob.max, step: knob.step };
  Object.assign(input, { id, type: "range", ...range });
  const say = (number) => {
    output.textContent = spoken(knob, number);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  const put = (next) => {
    if (form.getRootNode().activeElement !== input) input.value = position(knob, next);
    say(next);
  };
  put(value);
  input.addEventListener("input", () => {
    say(quantity(knob, input.value));
    changed(quantity(knob, input.value));
  });
  return put;
}

function knobsIn(body, model) {
  const knobs = model.get("knobs");
  if (!knobs.length) return () => {};
  body.classList.add("knobbed");
  const form = make("form", "knobs", body);
  form.setAttribute("aria-label", "Inputs");
  form.addEventListener("submit", (event) => event.preventDefault());
  let pending = {};
  let timer = 0;
  const send = () => {
    model.set("value", { ...model.get("value"), ...pending });
    pending = {};
    model.save_changes();
  };
  const puts = knobs.map((knob) =>
    knobIn(form, knob, model.get("value")[knob.name], (value) => {
      pending[knob.name] = value;
      clearTimeout(timer);
      timer = setTimeout(send, 16);
    }),
  );
  return () => puts.forEach((put, i) => knobs[i].name in pending || put(model.get("value")[knobs[i].name]));
}

function tabsIn(root, choose) {
  const list = make("div", "tabs", root);
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", "Runs");
  list.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const buttons = [...list.children];
    const next = buttons[buttons.indexOf(list.getRootNode().activeElement) + move];
    if (move && next) [next.focus(), next.click()];
  });
  return (screens, chosen) => {
    list.classList.toggle("hidden", screens.length < 2);
    while (list.children.length < screens.length) {
      const at = list.children.length;
      const button = make("button", "", list);
      button.type = "button";
      button.setAttribute("role", "tab");
      button.addEventListener("click", () => choose(at));
    }
    screens.forEach((screen, i) => {
      const button = list.children[i];
      button.setAttribute("aria-selected", String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
      button.replaceChildren();
      make("b", "", button, screen.title);
      const line = make("small", "", button);
      if (screen.status) statusIn(line, screen.status);
      if (screen.progress && screen.progress < 1) line.append(` ${Math.floor(100 * screen.progress)} %`);
    });
  };
}

async function render({ model, el }) {
  // Jupyter's shortcuts would steal arrows and letters; events from inside a shadow root appear to come from its host.
  el.dataset.lmSuppressShortcuts = "true";
  const shadow = el.shadowRoot ?? el.attachShadow({ mode: "open" });
  shadow.replaceChildren();
  make("style", "", shadow, STYLE);
  const root = make("section", "lab board", shadow);
  const tint = () => root.classList.toggle("dark", isDark());
  tint();
  const watcher = new MutationObserver(tint);
  [document.body, document.documentElement].forEach((e) => watcher.observe(e, { attributes: true }));

  let picked = null; // the reader's choice; until there is one, the screen that moves is in front
  let front = 0;
  const paintTabs = tabsIn(root, (at) => { picked = at; paint(); });
  const header = make("header", "", root);
  const heading = make("h2", "", header);
  const subtitle = make("span", "subtitle", header);
  const state = make("span", "", header);
  state.setAttribute("role", "status");
  const bar = make("progress", "", header);
  bar.max = 1;
  bar.setAttribute("aria-label", "Progress");
  const body = make("div", "body", root);
  const paintKnobs = knobsIn(body, model);
  const main = make("div", "main", body);
  const error = make("p", "error", main);
  error.setAttribute("role", "alert");
  const cards = make("dl", "lab-headlines", main);
  const failure = make("pre", "lab-failure", main);
  const figures = make("div", "lab-figures", main);
  const tables = make("div", "", main);
  const notes = make("ul", "notes", main);

  const drawn = new Map(); // "screen/figure" → promise of a drawn figure
  const paintFigures = (screen, at) => {
    const wanted = new Set(screen.figures.map((figure) => `${at}/${figure.name}`));
    for (const [key, figure] of drawn) {
      if (!wanted.has(key)) { drawn.delete(key); figure.then((f) => f.finalize()); }
    }
    screen.figures.forEach((figure) => {
      const key = `${at}/${figure.name}`;
      const spec = model.get("specs")[figure.name];
      if (drawn.has(key)) drawn.get(key).then((f) => f.update(figure, screen.frames));
      else if (spec) drawn.set(key, drawFigure(figures, figure, spec, screen.frames, root));
    });
    Promise.all(drawn.values()).then((all) => {
      const order = screen.figures.map((figure) => `${at}/${figure.name}`);
      const byKey = new Map([...drawn.keys()].map((key, i) => [key, all[i]]));
      order.forEach((key, i) => {
        const box = byKey.get(key)?.box;
        if (box && figures.children[i] !== box) figures.insertBefore(box, figures.children[i] ?? null);
      });
    });
  };
  let tabled = "";
  const paintTables = (wanted) => {
    const now = JSON.stringify(wanted);
    if (now === tabled) return;
    tabled = now;
    const open = new Set([...tables.querySelectorAll("details[open]")].map((fold) => fold.dataset.title));
    tables.replaceChildren(...wanted.map(tableOf));
    tables.querySelectorAll("details").forEach((fold) => (fold.open = open.has(fold.dataset.title)));
  };
  const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const paint = () => {
    const screens = model.get("screens");
    const moving = screens.findIndex((s) => ["running", "stalled", "failed", "lost"].includes(s.status?.word));
    const done = screens.findLastIndex((s) => s.status?.word === "completed");
    front = picked ?? (moving >= 0 ? moving : Math.max(0, done));
    const screen = screens[front];
    if (!screen) return;
    paintTabs(screens, front);
    root.setAttribute("aria-label", screen.title);
    setText(heading, screen.title);
    setText(subtitle, screen.subtitle);
    const word = screen.status ? `${screen.status.glyph} ${screen.status.word}` : "";
    if (state.dataset.shown !== word) {
      state.dataset.shown = word;
      state.replaceChildren();
      if (screen.status) statusIn(state, screen.status);
    }
    bar.classList.toggle("hidden", screen.progress === null);
    if (screen.progress !== null) bar.value = screen.progress;
    cards.replaceChildren(...headlinesOf(screen.headlines));
    setText(failure, screen.failure);
    failure.classList.toggle("hidden", !screen.failure);
    setText(error, model.get("error"));
    error.classList.toggle("hidden", !model.get("error"));
    paintFigures(screen, front);
    paintTables(screen.tables);
    notes.replaceChildren(...screen.notes.map((note) => make("li", "", null, note)));
    paintKnobs();
  };
  let queued = false;
  const soon = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; paint(); });
  };
  paint();
  const events = ["change:screens", "change:value", "change:error"];
  events.forEach((name) => model.on(name, soon));
  return () => {
    events.forEach((name) => model.off(name, soon));
    watcher.disconnect();
    drawn.forEach((figure) => figure.then((f) => f.finalize()));
  };
}
export default { render };
