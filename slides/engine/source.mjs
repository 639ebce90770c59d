/**
 * What a reader finds of a module beside its slides: a page with its whole source, in which
 * every definition and demo cell has an address, and its executed notebook.
 */
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { highlightLines } from "./code.mjs";
import { attributesHtml, escape } from "./html.mjs";
import { readModule } from "./module.mjs";
import { page } from "./pages.mjs";
import { remember } from "./remember.mjs";

/** @typedef {import("./module.mjs").Module} Module */

/**
 * @param {string} root the repository
 * @returns {{name: string, file: string}[]} the modules of code/
 */
export function moduleFiles(root) {
  return readdirSync(path.join(root, "code"), { withFileTypes: true })
    .filter((entry) => entry.isFile() && /^[^.].*\.py$/.test(entry.name))
    .map((entry) => ({ name: path.basename(entry.name, ".py"), file: `code/${entry.name}` }));
}

/**
 * @param {string} name of a module
 * @param {string} [symbol] a definition or a demo cell
 * @returns {string} the address of the page, relative to that of a deck
 */
export function sourceAddress(name, symbol) {
  return `source/${encodeURIComponent(name)}.html${symbol ? `#${encodeURIComponent(symbol)}` : ""}`;
}

/**
 * @param {string} root
 * @param {string} name
 * @returns {string | null} its notebook's file, if it was made by the code as it is now and with default arguments
 */
export function freshNotebook(root, name) {
  const file = `out/notebooks/${name}.ipynb`;
  const made = readMade(path.join(root, file));
  const { hash } = readModule(path.join(root, `code/${name}.py`));
  return made?.hash === hash && !made.arguments ? file : null;
}

/** What code/lab/notebooks.py wrote into a notebook of how it was made. */
function readMade(/** @type {string} */ file) {
  try {
    return readMetadata(file);
  } catch {
    return null;
  }
}

/** @type {(file: string) => {hash: string, arguments: string} | undefined} */
const readMetadata = remember((file) => JSON.parse(readFileSync(file, "utf8")).metadata.lab);

/**
 * @param {Module} module
 * @param {string} figure its file
 * @returns {string | undefined} the demo cell that saves it, if the source names it
 */
export function cellThatSaves(module, figure) {
  return module.figures.get(path.posix.basename(figure).replace(/\.\w+$/, ""));
}

/**
 * @param {string} root
 * @param {string} name of a module
 * @param {string} index the address of the page of all decks
 */
export function sourcePage(root, name, index) {
  const module = readModule(path.join(root, `code/${name}.py`));
  const download = (/** @type {string} */ href, /** @type {string} */ text) =>
    `<a${attributesHtml({ href, download: "" })}>${text}</a>`;
  const links = [
    download(`${encodeURIComponent(name)}.py`, `Download ${escape(name)}.py`),
    freshNotebook(root, name) && download(`../notebooks/${encodeURIComponent(name)}.ipynb`, "Executed notebook"),
    `<a${attributesHtml({ href: index })}>All decks</a>`,
  ];
  const pre = attributesHtml({ class: "listing", tabindex: 0, role: "group", "aria-label": `code/${name}.py` });
  return page(`code/${name}.py`, `
    <h1>code/${escape(name)}.py</h1>
    <p class="links">${links.filter(Boolean).join(" ")}</p>
    <pre${pre}><code>${listing(module)}</code></pre>`, { assets: "../", className: "index source-page" });
}

/** @param {Module} module */
function listing(module) {
  const lines = highlightLines(module.source.trimEnd(), module.tree, 0, module.source.trimEnd().length);
  const places = [...placesOf(module)];
  return lines.map((text, i) => {
    const starts = places.filter(([, { firstLine }]) => firstLine === i + 1).map(([id]) => `<span${attributesHtml({ id })}>`);
    const ends = places.filter(([, { lastLine }]) => lastLine === i + 1).map(() => "</span>");
    return `${starts.join("")}<span class="line" data-line="${i + 1}">${text || "<br>"}</span>${ends.join("")}`;
  }).join("");
}

/**
 * @param {Module} module
 * @returns {Map<string, import("./module.mjs").Span>} what a link may name; whatever lies in another comes after it
 */
function placesOf({ cells, definitions }) {
  const demos = [...cells].filter(([, { isDemo }]) => isDemo);
  return new Map([...demos, ...definitions]);
}
