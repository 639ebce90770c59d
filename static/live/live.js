/** Live code: the blocks of a deck that can be run and edited. deck.js loads it for decks that have such blocks. */
import { openEditor, showShapes } from "./editor.js";
import { Kernel } from "./kernel.js";
import { Outputs } from "./outputs.js";

/** @typedef {import("./outputs.js").Item} Item */
/**
 * @typedef {object} Kept of a block, while the page is
 * @property {Item[]} items
 * @property {string | null} request that runs
 * @property {string | null} latest whose output it shows
 * @property {string | null} text
 * @property {string} original
 */

const deck = document.body.dataset.deck ?? "";
const storage = `live ${deck}`;
const mostKept = 1_500_000; // characters of outputs that survive a reload

class Block {
  /**
   * @param {HTMLElement} figure
   * @param {number} index
   */
  constructor(figure, index) {
    this.figure = figure;
    const { module = "", symbol = "" } = figure.dataset;
    this.module = module;
    this.symbol = symbol;
    this.key = `${index} ${module} ${symbol}`;
    const lines = [...figure.querySelectorAll(".line")];
    this.firstLine = Number(lines[0]?.getAttribute("data-line") ?? 1);
    this.original = lines.map((line) => line.textContent ?? "").join("\n");
    this.text = this.original;
    this.recordedShapes = Object.fromEntries(lines.map((line) =>
      [line.getAttribute("data-line"), line.getAttribute("data-shape")]));
    /** @type {import("@codemirror/view").EditorView | null} */
    this.editor = null;
    /** @type {string | null} */
    this.request = null;
    /** Whose output it shows: a thread of it may still print. @type {string | null} */
    this.latest = null;
    this.hasShapes = false;
    this.pre = /** @type {HTMLElement} */ (figure.querySelector("pre"));
    this.panel = document.createElement("div");
    this.panel.className = "output live";
    this.panel.hidden = true;
    const content = document.createElement("div");
    content.className = "content";
    content.tabIndex = 0;
    content.setAttribute("aria-label", `output of ${symbol}`);
    this.panel.append(button("Hide", "hide the output", () => this.toggle(false), "hide"), content);
    this.outputs = new Outputs(content, () => keepSoon());
    this.bar = document.createElement("span");
    this.bar.className = "tools";
    this.status = document.createElement("span");
    this.status.className = "run-status";
    this.status.setAttribute("role", "status");
  }

  /** Puts the buttons where the slide says that it can be run. */
  show() {
    this.bar.append(
      button("Run ⇧↵", `run ${this.symbol}`, () => void run(this), "run"),
      button("Stop", "stop what runs", () => void kernel.interrupt(), "stop"),
      button("Reset", "back to the file's text", () => this.reset(), "reset"),
      this.menu(),
      ...(/^ *def forward\(/m.test(this.original)
        ? [button("Shapes", "show beside each line what shape it computed last", () => void this.toggleShapes(), "shapes")] : []),
      button("Output", "show the output", () => this.toggle(), "toggle"),
      this.status,
    );
    this.figure.querySelector(".runnable")?.replaceWith(this.bar);
    this.figure.after(this.panel);
    this.pre.addEventListener("click", () => this.edit());
    this.pre.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        event.stopPropagation();
        this.edit();
      }
    });
    this.mark();
  }

  menu() {
    const menu = document.createElement("details");
    menu.className = "menu";
    const summary = document.createElement("summary");
    summary.textContent = "⋯";
    summary.setAttribute("aria-label", "more");
    const name = document.createElement("input");
    name.placeholder = "name of the copy";
    name.setAttribute("aria-label", "name of the copy");
    name.addEventListener("keydown", (event) => event.stopPropagation());
    const close = (/** @type {() => void} */ action) => () => {
      menu.open = false;
      action();
    };
    const entries = document.createElement("div");
    entries.append(
      button("Run all above", "run the blocks of this module before this one", close(() => void runAbove(this))),
      button("Restart kernel", "forget everything and begin anew", close(() => void kernel.restart())),
      button("Copy", "copy the code", close(() => void navigator.clipboard.writeText(this.text))),
      button("Open in notebook", "download the module as a notebook", close(() => void this.download())),
      name,
      button("Save my edit", "write the module with this edit into out/live/", close(() => void this.save(name.value))),
    );
    menu.append(summary, entries);
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      event.stopPropagation();
      menu.open = false;
    });
    return menu;
  }

  edit() {
    if (getSelection()?.toString()) return; // somebody marks text to copy it
    this.openEditor().focus();
  }

  openEditor() {
    this.editor ??= openEditor({
      text: this.text,
      firstLine: this.firstLine,
      label: this.symbol,
      onRun: () => void run(this),
      onChange: (text) => {
        this.text = text;
        this.mark();
        keepSoon();
      },
    });
    this.pre.hidden = true;
    if (!this.editor.dom.isConnected) this.pre.after(this.editor.dom);
    return this.editor;
  }

  reset() {
    this.text = this.original;
    this.editor?.destroy();
    this.editor = null;
    this.pre.hidden = false;
    kernel.forget(this.latest);
    this.outputs.clear();
    this.toggle(false);
    keepSoon();
    if (!kernel.request(`live.reset(${python(this.module)}, ${python(this.symbol)})`)) this.say("reset here; the kernel is not there");
  }

  /** @param {boolean} [open] */
  toggle(open = this.panel.hidden) {
    this.panel.hidden = !open;
    this.mark();
  }

  /** Shows what state the block is in. */
  mark() {
    const { classList } = this.figure;
    this.panel.style.setProperty("--rows", String(this.text.split("\n").length)); // the result leaves room for them
    classList.toggle("edited", this.text !== this.original);
    classList.toggle("running", this.request !== null);
    classList.toggle("has-output", this.outputs.items.length > 0);
    classList.toggle("output-open", !this.panel.hidden);
    this.bar.querySelector(".shapes")?.setAttribute("aria-pressed", String(this.hasShapes));
  }

  /** @param {string} text */
  say(text) {
    this.status.textContent = text;
  }

  async toggleShapes() {
    this.hasShapes = !this.hasShapes;
    this.mark();
    const on = this.hasShapes ? "True" : "False";
    kernel.request(`live.watch_shapes(${python(this.module)}, ${python(this.symbol)}, ${on})`);
    await this.annotate();
    if (this.hasShapes) this.say("run a demo of this module to see shapes");
  }

  /** Puts the shapes of the latest call beside the lines, or the recorded ones where none is asked for. */
  async annotate() {
    const found = this.hasShapes ? await kernel.value(`live.shapes(${python(this.module)}, ${python(this.symbol)})`) : {};
    const shapes = this.hasShapes ? found : this.recordedShapes;
    for (const line of this.pre.querySelectorAll(".line")) {
      const shape = shapes?.[line.getAttribute("data-line") ?? ""];
      if (shape) line.setAttribute("data-shape", shape);
      else line.removeAttribute("data-shape");
    }
    const lines = Object.entries(found ?? {}).map(([line, shape]) => /** @type {const} */ ([Number(line) - this.firstLine + 1, shape]));
    if (this.editor) showShapes(this.editor, new Map(lines));
  }

  async download() {
    const notebook = await kernel.value(`live.notebook(${python(this.module)})`);
    if (!notebook) return this.say("no kernel: the notebook could not be made");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([notebook], { type: "application/x-ipynb+json" }));
    link.download = `${this.module}.ipynb`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** @param {string} name */
  async save(name) {
    const answer = await kernel.value(
      `live.save(${python(this.module)}, ${python(this.symbol)}, ${python(this.text)}, ${python(name)})`);
    this.say(answer ?? "no kernel: it is not saved");
  }

  /** @returns {Kept} */
  get kept() {
    const { items } = this.outputs;
    const edited = this.text !== this.original;
    return { items, request: this.request, latest: this.latest, text: edited ? this.text : null, original: this.original };
  }

  /** @param {Kept} kept by the page before it was loaded again */
  restore({ items, request, latest, text, original }) {
    if (original === this.original && text !== null) {
      this.text = text;
      this.openEditor();
    }
    this.outputs.restore(items);
    this.panel.hidden = !items.length && !request;
    if (request) follow(this, request);
    else if (latest) {
      this.latest = latest;
      kernel.late.set(latest, listenerOf(this));
    }
    this.mark();
  }
}

// Running ---------------------------------------------------------------------

/** @param {Block} block */
async function run(block) {
  if (block.request) return;
  if (!kernel.isConnected) {
    block.say("waits for the kernel");
    await kernel.connected;
  }
  kernel.forget(block.latest);
  block.outputs.clear();
  const code = `live.run(${python(block.module)}, ${python(block.symbol)}, ${python(block.text)})`;
  const listener = listenerOf(block);
  const request = kernel.run(code, listener);
  if (!request) return block.say("the kernel is lost");
  begin(block, request);
  return listener.ended;
}

/**
 * @param {Block} block
 * @param {string} request that the page before it was loaded again has made
 */
function follow(block, request) {
  kernel.listeners.set(request, listenerOf(block));
  begin(block, request);
}

/**
 * @param {Block} block
 * @param {string} request
 */
function begin(block, request) {
  block.request = block.latest = request;
  block.say("");
  block.mark();
  running.add(block);
  showRunning();
  keepSoon();
}

/** @param {Block} block */
function listenerOf(block) {
  const began = performance.now();
  /** @type {(how: "done" | "lost") => void} */
  let end = () => {};
  const ended = new Promise((resolve) => (end = resolve));
  let failed = false;
  return {
    ended,
    onMessage: (/** @type {import("./kernel.js").Message} */ message) => {
      if (message.type === "error") failed = true;
      if (/^(stream|display_data|execute_result|update_display_data|error)$/.test(message.type)) block.toggle(true);
      block.outputs.add(message);
    },
    onRepeat: (/** @type {import("./kernel.js").Message[]} */ messages) => {
      block.outputs.clear();
      for (const message of messages) block.outputs.add(message);
      if (block.request) block.toggle(true);
    },
    onEnd: (/** @type {"done" | "lost"} */ how) => {
      const seconds = (performance.now() - began) / 1000;
      block.request = null;
      if (how === "lost") {
        block.outputs.note("The kernel ended before this did. It starts again by itself; then run this once more.");
        block.toggle(true);
      }
      block.say(how === "lost" ? "ended with the kernel" : `${failed ? "✗" : "✓"} ${seconds.toFixed(seconds < 10 ? 1 : 0)} s`);
      block.mark();
      running.delete(block);
      for (const other of blocks) if (other.hasShapes && other.module === block.module) void other.annotate();
      showRunning(block, failed || how === "lost");
      keepSoon();
      end(how);
    },
  };
}

/** @param {Block} block */
async function runAbove(block) {
  for (const above of blocks.slice(0, blocks.indexOf(block) + 1))
    if (above.module === block.module && (await run(above)) !== "done") return;
}

// What the page shows of it ------------------------------------------------------

const light = document.createElement("button");
light.className = "kernel-light";
light.type = "button";
light.addEventListener("click", () => {
  const [block] = running;
  const section = (block ?? lastRun)?.figure.closest("section");
  if (kernel.state === "lost") void kernel.connect();
  else if (section) window.Reveal.slide(...Object.values(window.Reveal.getIndices(section)));
});

/** @type {Set<Block>} */
const running = new Set();
/** @type {Block | undefined} */
let lastRun;
let clock = 0;

/**
 * @param {Block} [ended]
 * @param {boolean} [failed]
 */
function showRunning(ended, failed = false) {
  lastRun = ended ?? lastRun;
  const [block] = running;
  clearInterval(clock);
  if (!block) return showState(kernel.state, ended ? `${failed ? "✗" : "✓"} ${ended.symbol}` : "");
  const began = Date.now();
  const tick = () => showState(kernel.state, `${block.symbol} · ${Math.round((Date.now() - began) / 1000)} s`);
  tick();
  clock = window.setInterval(tick, 1000);
}

/**
 * @param {import("./kernel.js").State} state
 * @param {string} [what]
 */
function showState(state, what = "") {
  light.dataset.state = state;
  const words = { starting: "kernel starting", ready: "kernel ready", busy: "running", lost: "kernel lost: click to connect" };
  light.textContent = [words[state], what].filter(Boolean).join(" · ");
}

// Keeping outputs and edits over a reload ------------------------------------------

let keeping = 0;

function keepSoon() {
  keeping ||= window.setTimeout(keep, 500);
}

function keep() {
  clearTimeout(keeping);
  keeping = 0;
  /** @type {Record<string, Kept>} */
  const kept = {};
  let length = 0;
  for (const block of blocks) {
    const state = block.kept;
    length += JSON.stringify(state.items).length;
    if (state.items.length || state.request || state.text !== null)
      kept[block.key] = length < mostKept ? state : { ...state, items: [] };
  }
  try {
    sessionStorage.setItem(storage, JSON.stringify(kept));
  } catch {} // there is no room: outputs are lost on a reload
}

/** @returns {Record<string, Kept>} */
function keptBefore() {
  try {
    return JSON.parse(sessionStorage.getItem(storage) ?? "{}");
  } catch {
    return {};
  }
}

// ------------------------------------------------------------------------------------

/** @param {string} text as a literal of Python: JSON's strings are */
const python = (text) => JSON.stringify(text);

/**
 * @param {string} text
 * @param {string} title
 * @param {() => void} onClick
 * @param {string} [className]
 */
function button(text, title, onClick, className = "") {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.textContent = text;
  made.title = title;
  made.addEventListener("click", onClick);
  return made;
}

const figures = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("figure.code[data-module]:has(.runnable)")]);
const blocks = figures.map((figure, index) => new Block(figure, index));
const modules = [...new Set(blocks.map(({ module }) => module))];
const kernel = new Kernel(deck, modules, (state, why) => showState(state, why));

/** Shift-Enter runs the block of the slide that is shown, and leaves its editor; Enter goes back to it. */
function onKey(/** @type {KeyboardEvent} */ event) {
  if (event.key !== "Enter" || event.defaultPrevented) return;
  const slide = window.Reveal.getCurrentSlide();
  const block = blocks.find(({ figure }) => slide?.contains(figure));
  if (!block || (!event.shiftKey && (!block.editor || document.activeElement !== document.body))) return;
  event.preventDefault();
  if (event.shiftKey) void run(block);
  else block.editor?.focus();
}

if ((await kernel.access()) !== "closed") {
  for (const block of blocks) block.show();
  document.querySelector(".reveal")?.append(light);
  document.addEventListener("keydown", onKey);
  addEventListener("pagehide", keep);
  const before = keptBefore();
  for (const block of blocks) if (before[block.key]) block.restore(before[block.key]);
  await kernel.connect();
}
