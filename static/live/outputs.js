/** What a run prints and shows, on a slide: bounded, sanitised, and kept while the page is. */
import { AnsiUp } from "ansi_up";
import DOMPurify from "dompurify";
import { drawCurve } from "./curve.js";

/**
 * @typedef {{kind: "text", text: string} | {kind: "data", data: Record<string, any>, id?: string}} Item
 */

const mostText = 200_000; // characters that the page keeps of a run
const mostShown = 60_000; // of one piece of text, so that no redraw takes long
const curve = "application/vnd.lab.curve+json";
const darkFigure = "application/vnd.lab.dark-svg+xml";

export class Outputs {
  /**
   * @param {HTMLElement} element
   * @param {() => void} onChange
   */
  constructor(element, onChange) {
    this.element = element;
    this.onChange = onChange;
    /** @type {Item[]} */
    this.items = [];
    /** @type {Set<Item>} */
    this.changed = new Set();
    /** @type {WeakMap<Item, HTMLElement>} */
    this.shown = new WeakMap();
    this.frame = 0;
    this.atEnd = true;
    element.addEventListener("scroll", () => (this.atEnd = element.scrollTop + element.clientHeight > element.scrollHeight - 40));
    element.addEventListener("load", () => this.showEnd(), true); // a figure has no height before
  }

  showEnd() {
    if (this.atEnd) this.element.scrollTop = this.element.scrollHeight;
  }

  clear() {
    this.atEnd = true;
    this.items = [];
    this.changed.clear();
    this.element.replaceChildren();
    this.onChange();
  }

  /** @param {Item[]} items of an earlier page */
  restore(items) {
    this.items = items;
    for (const item of items) this.redraw(item);
  }

  /** @param {import("./kernel.js").Message} message */
  add({ type, content }) {
    if (type === "stream") this.addText(content.text);
    else if (type === "error") this.addText(`${content.traceback.join("\n")}\n`);
    else if (type === "display_data" || type === "execute_result") this.addData(content);
    else if (type === "update_display_data") this.update(content);
    else if (type === "clear_output") this.clear();
  }

  /** @param {string} text that the page itself has to say */
  note(text) {
    this.addText(`\x1b[2m${text}\x1b[0m\n`);
  }

  /** @param {string} text */
  addText(text) {
    let last = this.items.at(-1);
    if (last?.kind !== "text") this.items.push((last = { kind: "text", text: "" }));
    last.text = overwritten(last.text + text.slice(-mostText));
    if (last.text.length > mostText) last.text = `… earlier output is left out …\n${last.text.slice(-mostText / 2)}`;
    this.redraw(last);
  }

  /** @param {{data: Record<string, any>, transient?: {display_id?: string}}} content */
  addData({ data, transient }) {
    /** @type {Item} */
    const item = { kind: "data", data, id: transient?.display_id };
    this.items.push(item);
    this.redraw(item);
  }

  /** @param {{data: Record<string, any>, transient?: {display_id?: string}}} content */
  update({ data, transient }) {
    for (const item of this.items) if (item.kind === "data" && item.id && item.id === transient?.display_id) {
      item.data = data;
      this.redraw(item);
    }
  }

  /** @param {Item} item */
  redraw(item) {
    this.changed.add(item);
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      for (const changed of this.changed) this.draw(changed);
      this.changed.clear();
      this.showEnd();
      this.onChange();
    });
  }

  /** @param {Item} item */
  draw(item) {
    const drawn = item.kind === "text" ? text(item.text) : data(item.data);
    const before = this.shown.get(item);
    if (before) before.replaceWith(drawn);
    else this.element.append(drawn);
    this.shown.set(item, drawn);
  }
}

/**
 * As a terminal would: a carriage return begins the line again.
 * @param {string} written
 */
function overwritten(written) {
  if (!written.includes("\r")) return written;
  return written.replaceAll("\r\n", "\n").replace(/[^\n]*\r(?!$)/g, "");
}

/** @param {string} content */
function text(content) {
  const ansi = new AnsiUp();
  ansi.use_classes = true;
  const pre = document.createElement("pre");
  pre.className = "text";
  pre.innerHTML = ansi.ansi_to_html(content.slice(-mostShown));
  return pre;
}

/** @param {Record<string, any>} bundle of representations by MIME type */
function data(bundle) {
  if (bundle[curve]) return drawCurve(bundle[curve]);
  if (bundle["image/svg+xml"]) return figure(
    svgImage("light-only", bundle["image/svg+xml"]),
    svgImage("dark-only", bundle[darkFigure] ?? bundle["image/svg+xml"]),
  );
  for (const type of ["image/png", "image/jpeg"])
    if (bundle[type]) return figure(image("panel", `data:${type};base64,${bundle[type]}`));
  if (bundle["text/html"]) return html(joined(bundle["text/html"]));
  return text(joined(bundle["text/plain"] ?? ""));
}

/** @param {HTMLElement[]} images */
function figure(...images) {
  const element = document.createElement("figure");
  element.append(...images);
  return element;
}

/** @param {string} className @param {string} svg drawn as an image, where no script runs */
const svgImage = (className, svg) => image(className, `data:image/svg+xml,${encodeURIComponent(joined(svg))}`);

/** @param {string} className @param {string} source */
function image(className, source) {
  const element = document.createElement("img");
  element.className = className;
  element.alt = "figure of this run";
  element.src = source;
  return element;
}

/** @param {string} content into a tree of its own, whose names and styles are not the deck's */
function html(content) {
  const host = document.createElement("div");
  host.className = "html";
  const shadow = host.attachShadow({ mode: "open" });
  shadow.innerHTML = `<style>${tableStyle}</style>`;
  const safe = DOMPurify.sanitize(content, {
    USE_PROFILES: { html: true },
    FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select", "video", "audio"],
    FORBID_ATTR: ["style"],
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of safe.querySelectorAll("a[href]")) {
    link.setAttribute("target", "_blank");
    link.setAttribute("rel", "noopener noreferrer");
  }
  shadow.append(safe);
  return host;
}

const tableStyle = `
  :host { display: block; font: 450 17px/1.45 var(--text-font); }
  table { border-collapse: collapse; }
  th, td { padding: 3px 12px; border-bottom: 1px solid var(--line); text-align: right; }
  img { max-width: 100%; }
`;

/** @param {string | string[]} value a notebook may have text in lines */
const joined = (value) => (Array.isArray(value) ? value.join("") : String(value));
