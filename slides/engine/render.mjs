/** Renders a deck: slides to HTML, with all that was checked on the way. */
import path from "node:path";
import katex from "katex";
import MarkdownIt from "markdown-it";
import { besideLine, fittingShapes, layoutOf, misfit, moduleCode, morphingSize, plainCode, space } from "./code.mjs";
import { encodeLink, markdown, readDeck } from "./deck.mjs";
import { inAddress } from "./decks.mjs";
import { attributesHtml, escape, withClass } from "./html.mjs";
import { readModule } from "./module.mjs";
import { distance } from "./nearest.mjs";
import { minutesOf } from "./plan.mjs";
import { recordedOutput, recordedShapes } from "./recorded.mjs";
import { Resolver, darkVariant, readLines } from "./resolve.mjs";
import { cellThatSaves, freshNotebook, sourceAddress } from "./source.mjs";

/**
 * @typedef {import("./deck.mjs").Token} Token
 * @typedef {import("./module.mjs").Module} Module
 * @typedef {import("./deck.mjs").Slide} Slide
 * @typedef {import("./deck.mjs").Block} Block
 * @typedef {import("./deck.mjs").Link} Link
 * @typedef {import("./html.mjs").Attributes} Attributes
 * @typedef {import("./resolve.mjs").Reference} Reference
 * @typedef {object} Options
 * @property {string} root the repository
 * @property {string} deck the deck's file, as in "slides/cnn.md"
 * @property {string} [assets] what stands before static/ in the addresses of files
 * @property {(name: string) => string} [linkDeck] from a deck's file name to its address
 * @property {boolean} [sources] there are pages of the modules' source, and notebooks, to link
 * @typedef {{deck: string, line: number, message: string, reference?: string}} Problem
 * @typedef {{html: string, references: Reference[], problems: Problem[]}} Rendering
 */

const course = "Deep Learning Architectures";
const citationsPerPage = 10;

/**
 * @param {string} text
 * @param {Options} options
 * @returns {Rendering}
 */
export function renderDeck(text, options) {
  return new DeckRenderer(text, options).render();
}

/**
 * @param {Problem[]} problems
 * @param {string} [id]
 */
export function errorSlide(problems, id) {
  const list = problems.map(({ deck, line, reference, message }) =>
    `<p>${escape(`${deck}:${line}`)}</p><pre>${escape(reference ? `${reference}\n${message}` : message)}</pre>`);
  return `<section${attributesHtml({ id, class: "error" })}><h2>This slide has an error</h2>${list.join("")}</section>`;
}

class DeckRenderer {
  /**
   * @param {string} text
   * @param {Options} options
   */
  constructor(text, { root, deck, assets = "", linkDeck = (name) => name, sources = false }) {
    const { meta, stacks } = readDeck(text);
    this.root = root;
    this.path = deck;
    this.assets = assets;
    this.linkDeck = linkDeck;
    this.sources = sources;
    this.meta = meta;
    this.stacks = stacks;
    this.slides = stacks.flat();
    /** @type {Problem[]} */
    this.problems = [];
    /** @type {string[]} */
    this.citations = [];
    /** @type {Map<Link, string[]>} */
    this.lineIds = new Map();
  }

  /** @returns {Rendering} */
  render() {
    const resolver = new Resolver(this.root, this.path, this.slides.map(({ id }) => id));
    const links = this.slides.flatMap((slide) => slide.links);
    const references = links.map((link) => (link.reference = resolver.resolve(link)));
    const entries = new Set(references.flatMap(({ entry }) => entry ?? []));
    this.citations = [...entries].sort();
    this.slides.forEach((_, index) => this.morph(index));
    const stacks = this.stacks.map((stack) => {
      const kicker = this.kicker(stack);
      const slides = stack.flatMap((slide) => this.pages(slide)).map((slide) => this.slide(slide, kicker));
      return slides.length > 1 ? `<section>\n${slides.join("\n")}\n</section>` : slides.join("");
    });
    return { html: stacks.join("\n"), references, problems: this.problems };
  }

  /**
   * @param {Slide} slide
   * @returns {Slide[]} itself, or as many as the references need
   */
  pages(slide) {
    const tokens = slide.blocks.flatMap((block) => block.tokens);
    if (!tokens.some(({ type }) => type === "references")) return [slide];
    const count = Math.max(1, Math.ceil(this.citations.length / citationsPerPage));
    return Array.from({ length: count }, (_, page) => (page ? { ...slide, page, id: "" } : slide));
  }

  /** @param {number} index of a slide: lines of its code that the slide before has too keep their names */
  morph(index) {
    const slide = this.slides[index];
    const before = this.slides[index - 1];
    const link = codeLinks(slide).find(({ reference }) => reference?.morph);
    if (!link) return;
    const oldLink = before && codeLinks(before).pop();
    if (!oldLink) return void slide.problems.push({ line: link.line, message: "morph needs code on the slide before" });
    const group = before.attributes["data-auto-animate-id"] ?? `morph-${index}`;
    for (const { attributes } of [before, slide])
      Object.assign(attributes, { "data-auto-animate": "", "data-auto-animate-id": group });
    const [oldLines, lines] = [oldLink, link].map(({ reference }) => (reference?.code ?? "").split("\n"));
    const oldIds = this.lineIds.get(oldLink) ?? oldLines.map((_, i) => `${group}-${i + 1}`);
    const kept = commonLines(oldLines, lines);
    this.lineIds.set(oldLink, oldIds);
    this.lineIds.set(link, lines.map((_, i) => oldIds[kept.get(i) ?? -1] ?? `${group}-${index}-${i + 1}`));
  }

  /**
   * @param {Slide[]} stack
   * @returns {string} the module that the stack shows most often, and its paper
   */
  kicker(stack) {
    const shown = stack.flatMap(({ links }) => links).flatMap(({ reference }) =>
      reference?.ok && /^(code|cell|figure)$/.test(reference.kind) ? [this.module(reference)] : []);
    if (!shown.length) return spans("header", "kicker", { architecture: this.meta.title });
    const count = (/** @type {Module} */ module) => shown.filter((other) => other === module).length;
    const { name, papers } = shown.reduce((most, module) => count(module) > count(most) ? module : most).header;
    if (papers.length !== 1) return spans("header", "kicker", { architecture: name });
    const [{ authors, venue, year }] = papers;
    return spans("header", "kicker", { architecture: name, paper: `${surnames(authors)} · ${venue} ${year}` });
  }

  /** @param {Reference} reference */
  module({ module }) {
    return readModule(path.join(this.root, "code", `${module}.py`));
  }

  /**
   * @param {Slide} slide
   * @param {string} kicker
   */
  slide(slide, kicker) {
    const html = this.slideHtml(slide, kicker);
    const problems = problemsOf(slide).map((problem) => ({ deck: this.path, ...problem }));
    this.problems.push(...problems);
    return problems.length ? errorSlide(problems, slide.id || undefined) : html;
  }

  /**
   * @param {Slide} slide
   * @param {string} kicker
   */
  slideHtml(slide, kicker) {
    const isTitle = slide === this.slides[0];
    const minutes = minutesOf(slide);
    const attributes = {
      ...withClass(isTitle ? "title" : "content", slide.attributes),
      id: slide.id || undefined,
      "data-family": this.meta.family || undefined,
      "data-timing": slide.attributes["data-timing"] ?? (minutes && Math.round(60 * minutes)),
      "data-at": `${this.path}:${slide.line}`,
    };
    return [
      `<section${attributesHtml(attributes)}>`,
      isTitle ? spans("header", "kicker", { architecture: course, date: longDate(this.meta.date) }) : kicker,
      this.html(slide.title, slide) + this.body(slide),
      this.footer(slide),
      this.notes(slide),
      "</section>",
    ].filter(Boolean).join("\n");
  }

  /**
   * @param {Slide} slide
   * @returns {string} what the speaker says, and how the papers' numbers on the slide were measured
   */
  notes(slide) {
    /** @type {Map<string, Set<string>>} */
    const numbers = new Map();
    for (const { reference: { protocol, text } = {} } of slide.links)
      if (protocol && text) numbers.set(protocol, (numbers.get(protocol) ?? new Set()).add(text));
    const items = [...numbers].map(([protocol, texts]) =>
      `<li>${escape(`${[...texts].join(", ")}: ${protocol}`)}</li>`);
    const list = items.length ? `<p>Numbers</p><ul>${items.join("")}</ul>` : "";
    const notes = this.html(slide.notes, slide) + list;
    return notes && `<aside class="notes">${notes}</aside>`;
  }

  /** @param {Slide} slide */
  body(slide) {
    const layout = this.layout(slide);
    const html = (/** @type {(block: Block) => boolean} */ wanted) =>
      slide.blocks.filter(wanted).map((block) => this.block(block, slide)).join("");
    const isProse = (/** @type {Block} */ { kind }) => kind === "prose";
    if (layout === "flow") return `<div class="body flow">${html(isProse)}</div>`;
    const isMedia = (/** @type {Block} */ block) => layout === "beside drawn" ? isCode(block) : !isProse(block);
    const prose = html(isProse) + html((block) => !isProse(block) && !isMedia(block));
    const attributes = attributesHtml({ class: `body ${layout}`, style: this.space(slide) });
    return `<div${attributes}><div class="media">${html(isMedia)}</div>`
      + `${prose && `<div class="prose">${prose}</div>`}</div>`;
  }

  /** @param {Slide} slide */
  layout(slide) {
    const rows = slide.blocks.map(({ tokens, link, kind }) =>
      (kind === "fence" ? fenceCode(tokens[0]) : link?.reference?.code ?? "").split("\n").length);
    return layoutOf(Math.max(0, ...rows), slide.layout);
  }

  /** @param {Slide} slide */
  space(slide) {
    const codes = this.codesOf(slide);
    if (!codes.length) return undefined;
    const { rows, columns } = space(codes, this.layout(slide));
    const group = slide.attributes["data-auto-animate-id"];
    const morphing = this.slides.filter(({ attributes }) => group && attributes["data-auto-animate-id"] === group)
      .map((other) => ({ layout: this.layout(other), ...space(this.codesOf(other), this.layout(other)) }));
    const size = morphing.length ? `;--morphing:${morphingSize(morphing).toFixed(2)}px` : "";
    return `--columns:${columns};--rows:${rows}${size}`;
  }

  /**
   * @param {Slide} slide
   * @returns {string[][]} the lines of its blocks of code, as wide as with the shapes beside them
   */
  codesOf(slide) {
    return slide.blocks.flatMap(({ kind, tokens, link }) => {
      if (kind === "fence") return [fenceCode(tokens[0]).split("\n")];
      if (!link?.reference?.code) return [];
      const shapes = this.shapes(link);
      return [link.reference.code.split("\n").map((line, i) => line + besideLine(shapes[i]))];
    });
  }

  /** @param {Link} link to code */
  shapes({ reference, layout }) {
    if (!reference?.code) return [];
    const shapes = recordedShapes(this.root, reference, this.module(reference).hash);
    const lines = reference.code.split("\n");
    return fittingShapes(lines, shapes, layoutOf(lines.length, layout));
  }

  /**
   * @param {Block} block
   * @param {Slide} slide
   */
  block({ kind, tokens, link, attributes }, slide) {
    if (kind === "prose") return this.html(tokens, slide);
    if (kind === "mermaid") return mermaid(tokens[0].content, attributes);
    if (kind === "fence") return fence(tokens[0], slide, attributes);
    const reference = link?.reference;
    if (!link || !reference?.ok) return "";
    if (reference.kind !== "figure")
      return moduleCode(this.module(reference), reference, attributes, this.lineIds.get(link), (text) =>
        this.openable(text, reference, reference.symbol) + this.notebook(reference),
      this.recorded(reference), this.shapes(link));
    return `<figure${attributesHtml(withClass("figure", attributes))}>${this.images(reference)}</figure>`;
  }

  /** @param {Reference} reference */
  recorded(reference) {
    return reference.run === true ? recordedOutput(this.root, reference, this.module(reference).hash, (name) =>
      this.images({ ...reference, file: `static/img/${name}.svg`, text: `figure ${name}`, dark: true })) : "";
  }

  /** @param {Reference} figure */
  images({ file = "", text, dark }) {
    const image = (/** @type {string} */ name, /** @type {string} */ source) =>
      `<img${attributesHtml({ class: name, src: encodeLink(this.assets + source), alt: text, loading: "lazy" })}>`;
    return dark ? image("light-only", file) + image("dark-only", darkVariant(file)) : image("panel", file);
  }

  /** @param {Slide} slide */
  footer(slide) {
    const figure = slide.links.find(({ kind, reference }) => kind === "figure" && reference?.ok)?.reference;
    const from = escape(this.meta.family ? `${course} · ${this.meta.family}` : course);
    const command = figure && madeBy(figure)
      && this.openable(madeBy(figure), figure, cellThatSaves(this.module(figure), figure.file ?? ""));
    return `<footer class="made-by"><span class="course">${from}</span>`
      + `${command ? `<span class="${figure?.stale ? "command stale" : "command"}">${command}</span>` : ""}</footer>`;
  }

  /**
   * @param {string} text
   * @param {Reference} reference
   * @param {string | undefined} symbol where in its module it comes from
   * @returns {string} the text as HTML, a link to the source where there are such pages
   */
  openable(text, { module = "" }, symbol) {
    if (!this.sources) return escape(text);
    const title = "open at this line";
    const href = this.assets + sourceAddress(module, symbol);
    return sourceLink(text, { href, target: "_blank", rel: "noopener", title, "aria-label": `${text}, ${title}` });
  }

  /** @param {Reference} reference */
  notebook({ module = "" }) {
    if (!this.sources || !freshNotebook(this.root, module)) return "";
    const href = `${this.assets}notebooks/${encodeURIComponent(module)}.ipynb`;
    return sourceLink("notebook", { href, download: "", "aria-label": `notebook ${module}.ipynb, executed` });
  }

  /**
   * @param {Token[]} tokens
   * @param {Slide} slide
   */
  html(tokens, slide) {
    return markdown.renderer.render(tokens, markdown.options, { deck: this, slide });
  }

  /**
   * @param {Link} link
   * @returns {{name: string, attributes: Record<string, string>}} the element that its text stands in
   */
  element({ href, reference }) {
    const span = (/** @type {string} */ kind, /** @type {string} */ title) =>
      ({ name: "span", attributes: { class: kind, title } });
    if (!reference?.ok) return span("", "");
    const { kind, file = "", target, stale, module, firstLine, lastLine, url = "", protocol = "" } = reference;
    switch (kind) {
      case "fact": return span("fact", `computed by code/${module}.py`);
      case "setting": return span("fact", `set in code/${module}.py`);
      case "paper": return {
        name: "a",
        attributes: { class: "reported", href: encodeLink(url), title: protocol, target: "_blank", rel: "noopener" },
      };
      case "record": return span(stale ? "record stale" : "record", measuredBy(reference));
      case "proof": return span("proof", target);
      case "code":
      case "cell": return span("source", `${file}, lines ${firstLine} to ${lastLine}`);
      case "citation": return { name: "a", attributes: { class: "citation", href: encodeLink(href) } };
      case "deck-link": {
        const [, fragment] = href.split(/#(.*)/s);
        const deck = path.posix.relative(path.posix.dirname(this.path), file);
        const page = file === this.path ? "" : inAddress(this.linkDeck(deck));
        return { name: "a", attributes: { href: fragment ? `${page}#/${encodeLink(fragment)}` : page || "#/" } };
      }
    }
    if (!file) return { name: "a", attributes: { href: encodeLink(href), target: "_blank", rel: "noopener" } };
    if (!file.startsWith("static/")) return span("source", file);
    return { name: "a", attributes: { href: encodeLink(this.assets + file) } };
  }
}

// What markdown-it does not render by itself -----------------------------------

/** @typedef {import("markdown-it/lib/renderer.mjs").RenderRule} Rule */

const plain = new MarkdownIt();

/** @type {Record<string, Rule>} */
const rules = {
  link_open(tokens, i, _options, { deck }) {
    const { link } = tokens[i].meta;
    const { name, attributes } = deck.element(link);
    return `<${name}${attributesHtml({ ...attributes, ...withClass(attributes.class, link.attributes) })}>`;
  },
  link_close(tokens, i, _options, { deck }) {
    return `</${deck.element(tokens[i].meta.link).name}>`;
  },
  image(tokens, i, _options, { deck }) {
    return deck.images(tokens[i].meta.link.reference);
  },
  fence(tokens, i, _options, { slide }) {
    return fence(tokens[i], slide, {});
  },
  code_block(tokens, i, _options, { slide }) {
    return fence(tokens[i], slide, {});
  },
  references(_tokens, _i, _options, { deck, slide }) {
    const first = (slide.page ?? 0) * citationsPerPage;
    const entries = deck.citations.slice(first, first + citationsPerPage);
    const items = entries.map((/** @type {string} */ entry) => `<li>${plain.renderInline(entry)}</li>`);
    return `<ol class="references" start="${first + 1}">${items.join("")}</ol>`;
  },
  math_inline: math,
  math_inline_block: math,
  math_block: math,
};
Object.assign(markdown.renderer.rules, rules);

const formulaLimits = { strict: false, maxExpand: 1000, maxSize: 100, trust: refuseCommand };

/** @param {{command: string}} command that makes a link, an image or HTML @returns {never} */
function refuseCommand({ command }) {
  throw new Error(`${command} is not available in formulas: write links and images in Markdown`);
}

/** What KaTeX, which is slow, made of each formula. @type {Map<string, string>} */
const formulas = new Map();

/** @type {Rule} */
function math(tokens, i, _options, { slide }) {
  const { type, content, meta } = tokens[i];
  const latex = type === "math_inline" ? content.replace(/^`([^]*)`$/, "$1") : content;
  const displayMode = type !== "math_inline";
  const key = `${displayMode} ${latex}`;
  try {
    const html = formulas.get(key) ?? katex.renderToString(latex, { displayMode, ...formulaLimits });
    formulas.set(key, html);
    return html;
  } catch (error) {
    slide.problems.push({ line: meta.line, message: /** @type {Error} */ (error).message.replaceAll("\n", " ") });
    return "";
  }
}

/**
 * @param {Token} token
 * @param {Slide} slide
 * @param {Attributes} attributes
 */
function fence(token, slide, attributes) {
  const code = fenceCode(token);
  const report = (/** @type {string} */ message) => slide.problems.push({ line: token.meta.line, message });
  const error = misfit(code.split("\n"), slide.layout);
  const isOpen = /^(<!--\s*[sv]\s*-->|#{1,2} .*|!\[.*)$/m.test(code) && token.info && !/markdown|md/.test(token.info);
  if (error) report(`the code does not fit: ${isOpen ? "is the line that closes it missing?" : "shorten it"} (${error})`);
  try {
    const { language, steps } = readInfo(token.info, code.split("\n").length);
    return plainCode(code, language, attributes, steps);
  } catch (mistake) {
    report(/** @type {Error} */ (mistake).message);
    return "";
  }
}

/** @param {Token} token */
const fenceCode = (token) => token.content.replace(/\n$/, "").replaceAll("\t", "    ");

/**
 * @param {string} info behind the ``` of a fence: python, {.python}, python {1-3,5|7}, python[1-3|5]
 * @param {number} count of lines
 * @returns {{language: string, steps: number[][]}} the lines in focus, step by step
 */
function readInfo(info, count) {
  const [whole, name = "", lines] = /^(?:\{?\.?([a-z][^\s{}[\]]*)\}?)?\s*(?:[{[]([\d\s,|-]+)[}\]])?/i.exec(info.trim()) ?? [""];
  const rest = info.trim().slice(whole.length).trim();
  if (rest) throw new Error(`"${rest}" behind \`\`\` is not understood: write the language and, if you like, lines, as in python {1-3,5|7}`);
  const language = name.toLowerCase();
  const meant = ["python", "mermaid"].find((known) => ![known, ...others].includes(language) && !pythons.test(language)
    && language.length > 3 && distance(language, known) <= 2);
  if (meant) throw new Error(`there is no language "${name}": do you mean ${meant}?`);
  const steps = lines ? lines.replace(/\s/g, "").split("|").map((step) => readLines(step, 1, count)) : [];
  return { language: pythons.test(language) ? "python" : language, steps };
}

const pythons = /^(i?python[23]?(\.\d+)?|py[23]?|pycon|ipy)$/;
const others = ["cython", "jython", "brython"];

/**
 * @param {string} diagram
 * @param {Attributes} attributes
 */
function mermaid(diagram, attributes) {
  const figure = attributesHtml(withClass("mermaid-figure", attributes));
  return `<figure${figure}><pre class="mermaid">${escape(diagram)}</pre></figure>`;
}

// Helpers ---------------------------------------------------------------------

/** @param {Slide} slide */
function problemsOf(slide) {
  const ofLinks = slide.links.flatMap((link) =>
    link.reference?.error ? [{ line: link.line, reference: asWritten(link), message: link.reference.error }] : []);
  return [...ofLinks, ...slide.problems].sort((a, b) => a.line - b.line);
}

/** @param {Link} link */
function asWritten({ kind, text, href, title }) {
  return `${kind === "figure" ? "!" : ""}[${text}](${href}${title && ` "${title}"`})`;
}

/** @param {Block} block */
const isCode = ({ kind, link }) => kind === "fence" || link?.reference?.code !== undefined;

/** @param {Slide} slide */
function codeLinks(slide) {
  return slide.blocks.flatMap(({ link }) => (link?.reference?.code === undefined ? [] : [link]));
}

/**
 * @param {string[]} before
 * @param {string[]} after
 * @returns {Map<number, number>} the longest common subsequence: from lines after to lines before
 */
function commonLines(before, after) {
  const same = (/** @type {number} */ i, /** @type {number} */ j) => before[i].trim() === after[j].trim();
  const length = Array.from({ length: before.length + 1 }, () => new Array(after.length + 1).fill(0));
  for (let i = before.length - 1; i >= 0; i--)
    for (let j = after.length - 1; j >= 0; j--)
      length[i][j] = same(i, j) ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
  const pairs = new Map();
  for (let i = 0, j = 0; i < before.length && j < after.length; ) {
    if (same(i, j)) pairs.set(j++, i++);
    else if (length[i + 1][j] >= length[i][j + 1]) i++;
    else j++;
  }
  return pairs;
}

/**
 * @param {string} name
 * @param {string} className
 * @param {Record<string, string>} texts by class; empty ones are left out
 */
function spans(name, className, texts) {
  const inner = Object.entries(texts)
    .map(([key, text]) => text && `<span class="${key}">${escape(text)}</span>`);
  return `<${name} class="${className}">${inner.join("")}</${name}>`;
}

/**
 * @param {string} text
 * @param {Attributes} attributes
 */
function sourceLink(text, attributes) {
  return `<a${attributesHtml({ class: "open", ...attributes })}>${escape(text)}</a>`;
}

/** @param {string[]} authors */
function surnames(authors) {
  const names = authors.map((author) => author.split(" ").pop());
  return names.length > 4 ? `${names[0]} et al.` : names.join(", ");
}

/** @param {Reference} figure */
function madeBy({ measured = {} }) {
  const { command, seconds, hardware = "", samples, data } = measured;
  return [
    command,
    seconds !== undefined && `${duration(seconds)} on ${hardware.replace(/ \(.*\)$/, "")}`,
    samples?.train && `${String(samples.train).replace(/\B(?=(\d{3})+$)/g, ",")} ${data}`,
  ].filter(Boolean).join(" · ");
}

/** @param {Reference} record */
function measuredBy({ measured = {}, stale }) {
  const { command, seconds, hardware, date } = measured;
  return [
    "measured by",
    stale && "older code of",
    command,
    seconds !== undefined && `in ${duration(seconds)}`,
    hardware && `on ${hardware}`,
    date && `(${date})`,
  ].filter(Boolean).join(" ");
}

/** @param {number} seconds */
function duration(seconds) {
  if (seconds < 90) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = seconds / 60;
  return minutes < 90 ? `${Math.round(minutes)} min` : `${(minutes / 60).toFixed(1)} h`;
}

const months = [
  "January", "February", "March", "April", "May", "June",
  "July", "August", "September", "October", "November", "December",
];

/** @param {string} date 2026-11-21 -> 21 November 2026; Intl is slow to start */
function longDate(date) {
  return date.replace(/^(\d{4})-(0[1-9]|1[0-2])-(\d\d)$/, (_, year, month, day) =>
    `${Number(day)} ${months[month - 1]} ${year}`);
}
