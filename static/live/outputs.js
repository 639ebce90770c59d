/** What a run prints and shows, on a slide: bounded, and kept while the page is. */
import { showData, showText } from "./show.js";
import { visible, written } from "./terminal.js";

/**
 * @typedef {{kind: "text", text: string} | {kind: "data", data: Record<string, any>, id?: string}} Item
 */

const mostText = 200_000; // characters that the page keeps of a run

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
    this.clearsNext = false;
    this.atEnd = true;
    element.addEventListener("scroll", () => (this.atEnd = element.scrollTop + element.clientHeight > element.scrollHeight - 40));
    element.addEventListener("load", () => this.showEnd(), true); // a figure has no height before
  }

  showEnd() {
    if (this.atEnd) this.element.scrollTop = this.element.scrollHeight;
  }

  clear() {
    this.clearsNext = false;
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
    if (this.clearsNext && type !== "update_display_data") this.clear();
    if (type === "stream") this.addText(content.text);
    else if (type === "error") this.addText(`${content.traceback.join("\n")}\n`);
    else if (type === "display_data" || type === "execute_result") this.addData(content);
    else if (type === "update_display_data") this.update(content);
    else if (type === "clear_output" && content.wait) this.clearsNext = true;
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
    last.text = written(last.text, text.slice(-mostText));
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
    const drawn = item.kind === "text" ? showText(visible(item.text)) : showData(item.data);
    const before = this.shown.get(item);
    if (before) before.replaceWith(drawn);
    else this.element.append(drawn);
    this.shown.set(item, drawn);
  }
}
