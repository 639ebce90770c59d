/** What was recorded of code, for wherever there is no kernel: what a snippet gave, what shapes a forward computed. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { attributesHtml, escape } from "./html.mjs";
import { remember } from "./remember.mjs";

/**
 * @typedef {{date: string, hardware: string, hash: string, versions: Record<string, string>}} Made
 * @typedef {{seconds: number, outputs: {text?: string, figure?: string}[]}} Snippet
 * @typedef {{made: Made, snippets: Record<string, Snippet>}} Recording
 * @typedef {{made: {hash: string}, shapes: Record<string, {code: string, lines: Record<string, string>}>}} Shapes
 */

const readJson = remember((file) => {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return null;
  }
});

/** @param {string} file @returns {any} null if there is none */
const readIfThere = (file) => (existsSync(file) ? readJson(file) : null);

/**
 * @param {string} root the repository
 * @param {import("./resolve.mjs").Reference} snippet
 * @param {string} hash of its module as it is now
 * @param {(figure: string) => string} image from the name of a figure to HTML
 * @returns {string} nothing where nothing was recorded, or the snippet shows nothing
 */
export function recordedOutput(root, { module, symbol = "" }, hash, image) {
  /** @type {Recording | null} */
  const recording = readIfThere(path.join(root, `static/recorded/${module}.json`));
  const snippet = recording?.snippets?.[symbol];
  if (!recording || !snippet?.outputs.length) return "";
  const { date, hardware, versions, hash: recorded } = recording.made;
  const about = [
    `Recorded output${recorded === hash ? "" : " of older code"}`, date, `torch ${versions.torch}`,
    `${snippet.seconds} s on ${hardware.replace(/ \(.*\)$/, "")}`,
  ].join(" · ");
  const outputs = snippet.outputs.map(({ text = "", figure }) =>
    figure ? `<figure>${image(figure)}</figure>` : `<pre class="text">${escape(text)}</pre>`);
  const content = attributesHtml({ class: "content", tabindex: 0, role: "group", "aria-label": `recorded output of ${symbol}` });
  return `<details class="output recorded"><summary>${escape(about)}</summary><div${content}>${outputs.join("")}</div></details>`;
}

/**
 * @param {string} root the repository
 * @param {import("./resolve.mjs").Reference} definition
 * @param {string} hash of its module as it is now
 * @returns {string[]} for each line of its code the shape of what it computed, if that was recorded of this code
 */
export function recordedShapes(root, { module, symbol = "", code = "" }, hash) {
  /** @type {Shapes | null} */
  const recording = readIfThere(path.join(root, `static/recorded/${module}.shapes.json`));
  const { code: digest, lines = {} } = recording?.shapes?.[symbol] ?? {};
  const isFresh = recording?.made.hash === hash && digest === createHash("sha256").update(code).digest("hex");
  return code.split("\n").map((_, line) => (isFresh && lines[line]) || "");
}
