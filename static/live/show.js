/** What a run shows, as an element of a slide: sanitised, so that nothing of it is executed. */
import math from "@vscode/markdown-it-katex";
import { AnsiUp } from "ansi_up";
import DOMPurify from "dompurify";
import katex from "katex";
import MarkdownIt from "markdown-it";
import { drawCurve } from "./curve.js";

const mostShown = 30_000; // characters of one piece of text, so that no redraw takes long
const darkFigure = "application/vnd.lab.dark-svg+xml";
const notShown = "is not shown on slides";

/** The richest first. @type {[RegExp, (value: any, type: string, bundle: Record<string, any>) => HTMLElement][]} */
const kinds = [
  [/^application\/vnd\.lab\.curve\+json$/, (curve) => drawCurve(curve)],
  [/^application\/vnd\.jupyter\.widget-view\+json$/, (_, __, bundle) =>
    note(`A widget (${nameOf(bundle)}) ${notShown}: print its value, or call the function with the values themselves`)],
  [/^text\/html$/, (html) => showHtml(joined(html))],
  [/^text\/markdown$/, (markdown) => showMarkdown(joined(markdown))],
  [/^text\/latex$/, (latex) => showMarkdown(joined(latex).replace(/^\s*\\begin[^]*$/, "$$$$\n$&\n$$$$"))],
  [/^image\/svg\+xml$/, (svg, _, bundle) =>
    figure(svgImage("light-only", svg), svgImage("dark-only", bundle[darkFigure] ?? svg))],
  [/^image\/(png|jpeg|gif|webp)$/, (image, type) => figure(img("panel", `data:${type};base64,${joined(image)}`))],
  [/^application\/json$/, (json) => showText(JSON.stringify(json, null, 2))],
  [/^(?!text\/plain$|application\/vnd\.lab\.)/, (_, type, bundle) =>
    note(`${type} ${notShown}${bundle["text/plain"] ? `: ${joined(bundle["text/plain"])}` : ""}`)],
];

/** @param {Record<string, any>} bundle of representations by MIME type */
export function showData(bundle) {
  for (const [kind, show] of kinds) {
    const type = Object.keys(bundle).find((type) => kind.test(type));
    if (type) return show(bundle[type], type, bundle);
  }
  return showText(joined(bundle["text/plain"] ?? ""));
}

/** @param {string} content with the colours of a terminal */
export function showText(content) {
  const ansi = new AnsiUp();
  ansi.use_classes = true;
  const pre = document.createElement("pre");
  pre.className = "text";
  pre.innerHTML = ansi.ansi_to_html(content.slice(-mostShown));
  return pre;
}

/** @param {string} text that the page itself has to say */
const note = (text) => showText(`\x1b[2m${text}\x1b[0m`);

/** @param {Record<string, any>} bundle */
const nameOf = (bundle) => /^\w+/.exec(joined(bundle["text/plain"] ?? ""))?.[0] ?? "of ipywidgets";

/** @param {HTMLElement[]} images */
function figure(...images) {
  const element = document.createElement("figure");
  element.append(...images);
  return element;
}

/** @param {string} className @param {string | string[]} svg drawn as an image, where no script runs */
const svgImage = (className, svg) => img(className, `data:image/svg+xml,${encodeURIComponent(joined(svg))}`);

/** @param {string} className @param {string} source */
function img(className, source) {
  const element = document.createElement("img");
  element.className = className;
  element.alt = "figure of this run";
  element.src = source;
  return element;
}

/** @param {string} content */
function showHtml(content) {
  const [safe, removed] = sanitized(content);
  const lost = removed.includes("iframe") ? "A frame" : removed.includes("script") ? "HTML with scripts" : "";
  if (!lost) return inTreeOfItsOwn(safe);
  const frame = /<iframe[^>]*\ssrc="(https?:[^"]*)"/i.exec(content)?.[1];
  const told = note(`${lost} ${notShown}: ${removed.includes("iframe")
    ? `open ${frame ?? "it"} in another tab`
    : "show an image, or an animation as a GIF or by to_html5_video()"}`);
  for (const empty of safe.querySelectorAll("img:not([src])")) empty.remove();
  if (!safe.textContent?.trim() && !safe.querySelector("img, audio, video")) return told;
  const both = document.createElement("div");
  both.append(inTreeOfItsOwn(safe), told);
  return both;
}

/** @param {string} content whose formulas KaTeX draws once the rest is sanitised */
function showMarkdown(content) {
  const [safe] = sanitized(markdown.render(content));
  for (const formula of /** @type {NodeListOf<HTMLElement>} */ (safe.querySelectorAll("[data-formula]")))
    katex.render(formula.textContent ?? "", formula, {
      displayMode: formula.dataset.formula === "block", throwOnError: false, strict: false, maxExpand: 1000,
    });
  return inTreeOfItsOwn(safe, new URL("static/lib/katex/katex.min.css", document.baseURI).href);
}

const markdown = new MarkdownIt({ html: true, linkify: true }).use(/** @type {any} */ (math).default ?? math);
for (const [rule, kind] of Object.entries({
  math_inline: "inline", math_inline_block: "block", math_inline_bare_block: "block", math_block: "block",
})) markdown.renderer.rules[rule] = (tokens, i) =>
  `<span data-formula="${kind}">${markdown.utils.escapeHtml(tokens[i].content)}</span>`;

/**
 * @param {string} content
 * @returns {[DocumentFragment, string[]]} what is safe of it, and the names of the elements that are not
 */
function sanitized(content) {
  const safe = DOMPurify.sanitize(content, {
    USE_PROFILES: { html: true },
    FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select"],
    ADD_FORBID_CONTENTS: ["form", "button", "select", "textarea"],
    FORBID_ATTR: ["style", "autoplay"],
    RETURN_DOM_FRAGMENT: true,
  });
  const removed = DOMPurify.removed.map((part) => ("element" in part ? part.element.nodeName.toLowerCase() : ""));
  for (const link of safe.querySelectorAll("a[href]")) {
    link.setAttribute("target", "_blank");
    link.setAttribute("rel", "noopener noreferrer");
  }
  return [safe, removed];
}

/**
 * @param {DocumentFragment} content whose names and styles are not the deck's
 * @param {string} [styleSheet]
 */
function inTreeOfItsOwn(content, styleSheet) {
  const host = document.createElement("div");
  host.className = "html";
  const shadow = host.attachShadow({ mode: "open" });
  const style = document.createElement("style");
  style.textContent = treeStyle;
  shadow.append(style);
  if (styleSheet) {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = styleSheet;
    shadow.append(link);
  }
  shadow.append(content);
  return host;
}

const treeStyle = `
  :host { display: block; font: 450 18px/1.45 var(--text-font) !important; } /* the deck's reset is for its own */
  table { border-collapse: collapse; }
  th, td { padding: 3px 12px; border-bottom: 1px solid var(--line); text-align: right; }
  img, video { max-width: 100%; max-height: var(--output-height, none); }
  pre, code { font-family: var(--code-font); }
  a { color: var(--idea); }
`;

/** @param {string | string[]} value a notebook may have text in lines */
const joined = (value) => (Array.isArray(value) ? value.join("") : String(value));
