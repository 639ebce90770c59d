/** What a link of a deck stands for, and whether that is true. Reads files, never runs Python. */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { misfit } from "./code.mjs";
import { anchorsOf } from "./deck.mjs";
import { isDeck } from "./front-matter.mjs";
import { dedent, readModule } from "./module.mjs";
import { nearest } from "./nearest.mjs";
import { checkStatement } from "./numbers.mjs";
import { findResult } from "./papers.mjs";
import { drawnWidth, readProvenance } from "./provenance.mjs";
import { once, remember } from "./remember.mjs";

/**
 * @typedef {import("./deck.mjs").Link} Link
 * @typedef {import("./module.mjs").Module} Module
 * @typedef {object} Run what a measurement or a figure says of how it came about
 * @property {string} command
 * @property {string} data
 * @property {Record<string, number>} samples
 * @property {number} seconds
 * @property {string} hardware
 * @property {string} date
 * @property {Record<string, string>} versions
 * @typedef {Partial<Run> & {hash: string, values: Record<string, unknown>}} Measurement
 * @typedef {object} Reference
 * @property {string} deck
 * @property {number} line
 * @property {import("./deck.mjs").Kind | "cell"} kind
 * @property {string} text
 * @property {string} target
 * @property {string} title
 * @property {boolean} ok
 * @property {string} [error] what is wrong, and what to do
 * @property {string} [file] relative to the repository, as all files here
 * @property {string} [module]
 * @property {string} [symbol] a definition's name, or a cell's
 * @property {number} [firstLine]
 * @property {number} [lastLine]
 * @property {string} [code] as it stands on the slide
 * @property {boolean} [block]
 * @property {boolean} [beside]
 * @property {boolean | string} [run] of code: can be run; of a figure: the run that made it
 * @property {boolean} [morph]
 * @property {number[][]} [lines] lines of the file in focus, step by step
 * @property {string} [key]
 * @property {unknown} [value]
 * @property {string} [url] of the paper that reports a number
 * @property {string} [protocol] by which a paper's number was measured
 * @property {Partial<Run & {values: undefined}>} [measured] the run that gave a record or a figure
 * @property {boolean} [stale] measured by older code
 * @property {boolean} [dark] a figure has a dark variant
 * @property {string} [entry] a citation's full entry, in Markdown
 */

/** How many pixels wide a figure beside text is: that of code/lab/look.py. */
const BESIDE = 756;

/** Resolves the links of one deck. */
export class Resolver {
  /**
   * @param {string} root the repository
   * @param {string} deck as in "slides/cnn.md"
   * @param {string[]} anchors of the deck's own slides
   */
  constructor(root, deck, anchors) {
    this.root = root;
    this.deck = deck;
    this.anchors = anchors;
    this.papers = once(() => this.readPapers());
    /** @type {Map<string, string>} */
    this.hashes = new Map();
  }

  /**
   * @param {Link} link
   * @returns {Reference}
   */
  resolve(link) {
    const { line, kind, text, href: target, title } = link;
    const reference = { deck: this.deck, line, kind, text, target, title, ok: true };
    try {
      return { ...reference, ...this.find(link) };
    } catch (error) {
      return { ...reference, ok: false, error: /** @type {Error} */ (error).message };
    }
  }

  /**
   * @param {Link} link
   * @returns {Partial<Reference>}
   */
  find(link) {
    switch (link.kind) {
      case "code": return this.findCode(link);
      case "fact":
      case "setting": return this.findFact(link);
      case "record": return this.findRecord(link);
      case "paper": return this.findPaper(link);
      case "proof": return this.findProof(link);
      case "figure": return this.findFigure(link);
      case "citation": return this.findCitation(link);
      case "deck-link": return this.findDeck(link);
      case "link": return this.findLink(link);
    }
  }

  /**
   * @param {Link} link
   * @returns {{file: string, fragment: string}}
   */
  locate({ href }) {
    const [target, fragment = ""] = href.split(/#(.*)/s).map(decode);
    const file = path.posix.join(path.posix.dirname(this.deck), target);
    if (path.posix.isAbsolute(target) || file.startsWith("../"))
      throw new Error("the file lies outside of the project");
    if (!existsSync(this.absolute(file))) {
      const folder = path.posix.dirname(file);
      const there = existsSync(this.absolute(folder)) ? readdirSync(this.absolute(folder)) : [];
      throw new Error(`there is no file ${file}${nearest(path.posix.basename(file), there)}`);
    }
    return { file, fragment };
  }

  /** @param {string} file */
  absolute(file) {
    return path.join(this.root, file);
  }

  /** @param {string} name */
  module(name) {
    const file = this.absolute(`code/${name}.py`);
    if (!existsSync(file)) throw new Error(`there is no module code/${name}.py`);
    const module = readModule(file);
    if (module.header.error) throw new Error(`code/${name}.py: ${module.header.error}`);
    return module;
  }

  /** @param {string} name */
  hash(name) {
    const hash = this.hashes.get(name) ?? this.module(name).hash;
    this.hashes.set(name, hash);
    return hash;
  }

  /** @param {Link} link */
  findCode(link) {
    const { file, fragment } = this.locate(link);
    if (path.posix.dirname(file) !== "code") throw new Error("only modules stand on slides: code/NAME.py");
    const module = this.module(path.posix.basename(file, ".py"));
    if (link.inTable) throw new Error("code does not stand in a table: put the link into a paragraph of its own");
    if (link.title && !link.block)
      throw new Error("code stands alone: put the link into a paragraph of its own, between empty lines");
    const definition = module.definition(fragment);
    const cell = module.cells.get(fragment);
    const span = definition ?? cell;
    if (!span) {
      const known = [...module.definitions.keys(), ...module.cells.keys()];
      throw new Error(`${file} has no definition or demo cell "${fragment}"${nearest(fragment, known)}`);
    }
    if (!definition && !cell?.isDemo)
      throw new Error('it is no demo cell: its body must be one block under if __name__ == "__main__":');
    const { firstLine, lastLine } = span;
    const lines = dedent(module.lines.slice(firstLine - 1, lastLine));
    const error = link.block && misfit(lines, link.layout);
    if (error) throw new Error(`it does not fit: show it method by method (${error})`);
    return {
      ...(definition ? {} : { kind: /** @type {const} */ ("cell") }),
      file, module: module.name, symbol: fragment, firstLine, lastLine, code: lines.join("\n"),
      block: link.block, beside: link.layout.startsWith("beside"), ...readWords(link.title, firstLine, lines.length),
    };
  }

  /** @param {Link} link */
  findFact(link) {
    const { file, fragment } = this.locate(link);
    const module = path.posix.basename(file, ".py");
    const [run, key] = fragment.split(/\.(.*)/s);
    return { ...this.findValue(link, module, run, key), key };
  }

  /** @param {Link} link */
  findRecord(link) {
    const { file, fragment } = this.locate(link);
    const [run, key] = fragment.split(/\.(.*)/s);
    return this.findValue(link, path.posix.basename(file, ".json"), run, key ?? "");
  }

  /** @param {Link} link */
  findPaper(link) {
    const { file, fragment } = this.locate(link);
    const result = findResult(this.absolute(file), file, fragment);
    checkStatement(link.text, result.value);
    return { file, key: fragment, ...result };
  }

  /**
   * @param {Link} link
   * @param {string} name of the module
   * @param {string} run
   * @param {string} key
   */
  findValue({ text }, name, run, key) {
    const newest = this.hash(name);
    const runs = this.results(name);
    const measured = Object.hasOwn(runs, run) && runs[run];
    const remedy = `run python code/${name}.py`;
    if (!measured)
      throw new Error(`static/results/${name}.json has no "${run}"${nearest(run, Object.keys(runs))}: ${remedy}`);
    const { values: own, hash, ...about } = measured;
    /** @type {Record<string, unknown>} seconds, date, hardware and so on are those of the run itself */
    const values = { ...about, ...own };
    for (const group of /** @type {const} */ (["versions", "samples"]))
      for (const [part, value] of Object.entries(about[group] ?? {})) values[`${group}.${part}`] = value;
    if (!Object.hasOwn(values, key))
      throw new Error(`"${run}" has no value "${key}"${nearest(key, Object.keys(values))}: ${remedy}`);
    const stale = hash !== newest;
    if (stale && /^(facts|settings|demo)$/.test(run)) throw new Error(`"${run}" was computed by older code: ${remedy}`);
    const value = values[key];
    checkStatement(text, value);
    return { file: `static/results/${name}.json`, module: name, key: `${run}.${key}`, value, stale, measured: about };
  }

  /**
   * @param {string} name
   * @returns {Record<string, Measurement>}
   */
  results(name) {
    const file = `static/results/${name}.json`;
    if (!existsSync(this.absolute(file))) throw new Error(`there is no ${file}: run python code/${name}.py`);
    const record = readJson(this.absolute(file));
    const { choices, ...runs } = isObject(record) ? record : {}; // a demo chooses, a slide does not show how
    if (!isObject(record) || !Object.values(runs).every((run) => isObject(run) && isObject(run.values)))
      throw new Error(`${file} is damaged: run python code/${name}.py`);
    return runs;
  }

  /** @param {Link} link */
  findProof(link) {
    const { file, fragment } = this.locate(link);
    const [, name, parameters = ""] = /^([^[]*)(\[.*\])?$/s.exec(fragment) ?? [];
    const names = [...readModule(this.absolute(file)).definitions.keys()]
      .filter((symbol) => /(^|\.)test_\w+$/.test(symbol))
      .map((symbol) => symbol.replace(".", "::"));
    if (!names.includes(name)) throw new Error(`${file} has no test ${name}${nearest(name ?? "", names)}`);
    return { file, target: `${file}::${name}${parameters}` };
  }

  /** @param {Link} link */
  findFigure(link) {
    if (!link.text) throw new Error("the picture has no alternative text: say between the brackets what it shows");
    const folder = path.posix.relative(path.posix.dirname(this.deck), "static/img");
    if (path.posix.dirname(link.href) !== folder || !/\.(svg|png)$/.test(link.href))
      throw new Error(`pictures are ${folder}/NAME.svg or NAME.png, saved by a module`);
    const { file } = this.locate(link);
    const provenance = readProvenance(this.absolute(file));
    if (!provenance) throw new Error(`${file} does not say what made it: save it with lab.figures`);
    const { module: name, run, hash, command } = provenance;
    const stale = hash !== this.hash(name);
    if (stale && run === "demo") throw new Error(`the figure was made by older code: run ${command}`);
    const dark = file.endsWith(".svg");
    const width = dark ? drawnWidth(this.absolute(file)) : 0;
    if (link.layout === "beside" && width > BESIDE)
      throw new Error(`the figure is ${width} pixels wide, beside text there is room for ${BESIDE}: `
        + "draw it with size=figures.BESIDE, or let it stand alone");
    if (dark && !existsSync(this.absolute(darkVariant(file))))
      throw new Error(`${darkVariant(file)} is missing: run ${command}`);
    const runs = existsSync(this.absolute(`static/results/${name}.json`)) ? this.results(name) : {};
    return { file, module: name, run, stale, dark, measured: { ...runs[run], values: undefined, command } };
  }

  /** @param {Link} link */
  findCitation({ href, title }) {
    if (!/^https?:\/\//i.test(href)) throw new Error("citations lead to https://");
    const paper = this.papers().get(paperId(href));
    const entry = paper
      ? `${paper.authors.join(", ")}. *${paper.title}*. ${paper.venue} ${paper.year}. [${paper.id}](${paper.url})`
      : title && `${title} [${href.replace(/^https?:\/\/(www\.)?/, "")}](<${href}>)`;
    if (!entry)
      throw new Error("no module's header has this paper: give its full entry as the link's title, "
        + '[Name, year](URL "Authors. *Title*. Venue year.")');
    return { entry };
  }

  readPapers() {
    const folder = this.absolute("code");
    const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".py")) : [];
    const papers = files.flatMap((name) => readModule(path.join(folder, name)).header.papers);
    return new Map(papers.flatMap((paper) => [[paperId(paper.url), paper], [paperId(paper.id), paper]]));
  }

  /** @param {Link} link */
  findDeck(link) {
    const fragment = decode(link.href.split(/#(.*)/s)[1] ?? "");
    const file = link.href.startsWith("#") ? this.deck : this.locate(link).file;
    if (!file.startsWith("slides/")) return { file, kind: /** @type {const} */ ("link") };
    if (file !== this.deck && !isDeck(this.absolute(file))) throw new Error(`${file} is no deck: it has no front matter`);
    const anchors = file === this.deck ? this.anchors : fragment ? readAnchors(this.absolute(file)) : [];
    if (fragment && !anchors.includes(fragment))
      throw new Error(`${file} has no slide "${fragment}"${nearest(fragment, anchors)}`);
    return { file };
  }

  /** @param {Link} link */
  findLink(link) {
    if (/^(https?:\/\/|mailto:)/i.test(link.href)) return {};
    if (/^([a-z][a-z0-9+.-]*:|\/\/)/i.test(link.href)) throw new Error("links to the outside begin with https://");
    return { file: this.locate(link).file };
  }
}

const readAnchors = remember((file) => anchorsOf(readFileSync(file, "utf8")));

const readJson = remember((file) => {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return null;
  }
});

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {string} file */
export function darkVariant(file) {
  return file.replace(/\.svg$/, ".dark.svg");
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {string} text an address, arXiv id or DOI */
function paperId(text) {
  const arxiv = /(?:arxiv\.org\/(?:abs|pdf)\/|arxiv:)([\w.-]+\/\d+|\d+\.\d+)/i.exec(text)?.[1];
  const doi = /\b(10\.\d{4,}\/[^\s?#]+)/.exec(text)?.[1];
  return arxiv ?? doi?.toLowerCase() ?? text.replace(/^https?:\/\/(www\.)?|\/$/g, "");
}

/**
 * @param {string} title of a link to code
 * @param {number} firstLine
 * @param {number} count of lines
 */
function readWords(title, firstLine, count) {
  const words = { run: false, morph: false, lines: /** @type {number[][]} */ ([]) };
  for (const word of title.split(/\s+/).filter(Boolean)) {
    if (word === "run") words.run = true;
    else if (word === "morph") words.morph = true;
    else if (/^lines=\d+(-\d+)?([,|]\d+(-\d+)?)*$/.test(word))
      words.lines = word.slice("lines=".length).split("|").map((step) => readLines(step, firstLine, count));
    else throw new Error(`"${word}" is not understood: a link to code takes lines=1-3,5|7-9, run and morph`);
  }
  return words;
}

/**
 * @param {string} step such as 1-3,5
 * @param {number} firstLine
 * @param {number} count
 * @returns {number[]} lines of the file
 */
export function readLines(step, firstLine, count) {
  return step.split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    if (first < 1 || last < first || last > count)
      throw new Error(`there are no lines ${range}: it has lines 1 to ${count}`);
    return Array.from({ length: last - first + 1 }, (_, i) => firstLine + first - 1 + i);
  });
}
