/** Code on a slide: whether it fits, its highlighting and its HTML. */
import { highlightCode } from "@lezer/highlight";
import { highlighter } from "./highlighter.mjs";
import { attributesHtml, escape, withClass } from "./html.mjs";
import { indentation, python } from "./module.mjs";

/**
 * @typedef {import("./deck.mjs").Layout} Layout
 * @typedef {import("./html.mjs").Attributes} Attributes
 */

/** @type {Record<Layout, {rows: number, columns: number, where: string}>} */
const maximum = {
  flow: { rows: 20, columns: 76, where: "a slide" },
  wide: { rows: 20, columns: 76, where: "a slide" },
  beside: { rows: 20, columns: 60, where: "a slide with prose" },
  above: { rows: 11, columns: 76, where: "the place above a figure" },
  "beside above": { rows: 11, columns: 60, where: "the place above a figure" },
  "beside drawn": { rows: 20, columns: 66, where: "the place beside a figure" },
  "wide pair": { rows: 20, columns: 44, where: "half a slide" },
};

/**
 * @param {number} rows of code
 * @param {Layout} layout
 * @returns {Layout} code that is too high to stand above its drawing stands beside it
 */
export const layoutOf = (rows, layout) =>
  (layout.endsWith("above") && rows > maximum[layout].rows ? "beside drawn" : layout);

/**
 * @param {string[]} lines
 * @param {Layout} layout
 * @returns {string | null} why they don't fit
 */
export function misfit(lines, layout) {
  const { rows, columns, where } = maximum[layoutOf(lines.length, layout)];
  const widest = widestLine(lines);
  if (lines.length <= rows && widest <= columns) return null;
  return `${lines.length} lines of up to ${widest} columns; ${where} takes ${rows} of ${columns}`;
}

/** Pixels for lines where code morphs, below a title of one line; of a block's width; of its edges and line numbers. */
const linesHeight = 456;
const blockWidth = {
  flow: 1168, wide: 1168, above: 1168, "beside drawn": 800, beside: 756, "beside above": 756, "wide pair": 566,
};
const edges = 54;
const smallest = 18;

/**
 * @param {number} columns
 * @param {Layout} layout
 * @returns {number} the size of type at which a line has just room
 */
const sizeOf = (columns, layout) => (blockWidth[layout] - edges) / (columns + 3) / 0.6;

/**
 * The space that the blocks of a slide take together, for theme.css.
 * @param {string[][]} blocks their lines, with what stands beside them
 * @param {Layout} layout
 */
export function space(blocks, layout) {
  const rows = blocks.map(({ length }) => length);
  return {
    rows: layout === "wide pair" ? Math.max(...rows) : rows.reduce((sum, count) => sum + count, 0),
    columns: Math.max(...blocks.map(widestLine)),
  };
}

/**
 * The shapes that have room beside their lines.
 * @param {string[]} lines
 * @param {string[]} shapes
 * @param {Layout} layout
 */
export function fittingShapes(lines, shapes, layout) {
  return shapes.map((shape, i) => (sizeOf(widestLine([lines[i] + besideLine(shape)]), layout) < smallest ? "" : shape));
}

/** @param {string} shape as theme.css sets it, in the width of its line's letters */
export const besideLine = (shape) => shape && " ".repeat(3 + Math.ceil(0.85 * shape.length));

/**
 * The size of type that fits on each slide between which code morphs, so that no line changes its size on the way.
 * @param {{rows: number, columns: number, layout: Layout}[]} slides
 */
export function morphingSize(slides) {
  const sizes = slides.map(({ rows, columns, layout }) =>
    layout === "beside drawn" ? smallest : Math.min(sizeOf(columns, layout), linesHeight / rows / 1.32));
  return Math.max(smallest, Math.min(22, ...sizes));
}

/** @param {string[]} lines */
function widestLine(lines) {
  return lines.reduce((widest, line) => Math.max(widest, [...line].length), 0);
}

/**
 * @param {string} source
 * @param {import("@lezer/common").Tree} tree
 * @param {number} from
 * @param {number} to
 * @returns {string[]} the HTML of each line, without the indentation that all have
 */
export function highlightLines(source, tree, from, to) {
  const indent = indentation(source.slice(from, to).split("\n"));
  const lines = [""];
  let toDedent = indent;
  highlightCode(source, tree, highlighter, (text, classes) => {
    const shown = text.slice(Math.min(toDedent, text.length));
    toDedent -= text.length - shown.length;
    lines[lines.length - 1] += classes && shown ? `<span class="${classes}">${escape(shown)}</span>` : escape(shown);
  }, () => {
    lines.push("");
    toDedent = indent;
  }, from, to);
  return lines;
}

/**
 * A code block of a module, by line numbers of its file.
 * @param {import("./module.mjs").Module} module
 * @param {import("./resolve.mjs").Reference} reference
 * @param {Attributes} attributes
 * @param {string[] | undefined} ids of the lines, for a morph
 * @param {(text: string) => string} caption from file and lines to HTML
 * @param {string} recorded what it gave when it was run, as HTML
 * @param {string[]} shapes of what each line computed
 */
export function moduleCode(module, reference, attributes, ids, caption = escape, recorded = "", shapes = []) {
  const { file, symbol, firstLine = 1, lastLine = firstLine, lines = [], run } = reference;
  const from = module.lines.slice(0, firstLine - 1).reduce((offset, line) => offset + line.length + 1, 0);
  const to = from + module.lines.slice(firstLine - 1, lastLine).join("\n").length;
  const html = highlightLines(module.source, module.treeAt(from), from, to);
  return figure({
    lines: html.map((text, i) => ({
      text, number: firstLine + i, id: ids?.[i], shape: shapes[i] || undefined, focus: isFocus(lines, firstLine + i),
    })),
    attributes: { ...attributes, "data-module": module.name, "data-symbol": symbol ?? "", "data-source": file ?? "" },
    label: `${file}, lines ${firstLine} to ${lastLine}`,
    caption: (run ? `<div class="runnable">${recorded}</div>` : "")
      + `<span class="source">${caption(`${file}:${firstLine}–${lastLine}`)}</span>`,
    steps: stepsHtml(lines),
  });
}

/**
 * Code that is written in the deck.
 * @param {string} code
 * @param {string} language
 * @param {Attributes} attributes
 * @param {number[][]} steps the lines in focus
 */
export function plainCode(code, language, attributes, steps) {
  const html = language === "python"
    ? highlightLines(code, python.parse(code), 0, code.length)
    : escape(code).split("\n");
  const lines = html.map((text, i) => steps.length ? { text, number: i + 1, focus: isFocus(steps, i + 1) } : { text });
  return figure({ lines, attributes, label: "code", caption: "", steps: stepsHtml(steps) });
}

/**
 * @param {number[][]} steps
 * @param {number} line
 * @returns {boolean} whether it is in focus from the start, because there is but one step
 */
const isFocus = (steps, line) => steps.length === 1 && steps[0].includes(line);

/** @param {number[][]} steps */
const stepsHtml = (steps) => steps.length < 2 ? ""
  : steps.map((step) => `<span class="fragment step" data-lines="${ranges(step)}"></span>`).join("");

/**
 * @param {object} options
 * @param {{text: string, number?: number, id?: string, shape?: string, focus?: boolean}[]} options.lines
 * @param {Attributes} options.attributes
 * @param {string} options.label
 * @param {string} options.caption
 * @param {string} options.steps
 */
function figure({ lines, attributes, label, caption, steps }) {
  const outer = attributesHtml(withClass("code", attributes));
  const inner = lines.map(({ text, number, id, shape, focus }) => {
    const line = attributesHtml({
      class: focus ? "line focus" : "line", "data-line": number, "data-id": id, "data-shape": shape,
    });
    return `<span${line}>${text || "<br>"}</span>`;
  });
  const pre = attributesHtml({ tabindex: 0, role: "group", "aria-label": label });
  return `<figure${outer}><pre${pre}><code>${inner.join("")}</code></pre>`
    + `${steps}${caption && `<figcaption>${caption}</figcaption>`}</figure>`;
}

/** @param {number[]} lines [31, 32, 33, 35] -> "31-33,35" */
function ranges(lines) {
  /** @type {[number, number][]} */
  const found = [];
  for (const line of lines) {
    const last = found[found.length - 1];
    if (last?.[1] === line - 1) last[1] = line;
    else found.push([line, line]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}
