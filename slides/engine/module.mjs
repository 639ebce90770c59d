/** Reads a Python module without running it, as code/lab/source.py does: header, definitions, cells, figures, hash. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { Tree } from "@lezer/common";
import { parser } from "@lezer/python";
import { styleTags, tags } from "@lezer/highlight";
import { once, remember } from "./remember.mjs";

/**
 * @typedef {{firstLine: number, lastLine: number}} Span lines of the file, counted from 1
 * @typedef {{authors: string[], title: string, venue: string, year: string, id: string, url: string}} Paper
 * @typedef {{name: string, papers: Paper[], idea: string, demo: string, time: string, error: string | null}} Header
 * @typedef {Span & {title: string, isDemo: boolean}} Cell the lines of a demo cell are those that its guard guards
 */

/** Python with names of their own for docstrings and decorators. */
export const python = parser.configure({
  props: [
    styleTags({
      "ExpressionStatement/String": tags.docString,
      "Decorator/VariableName Decorator/PropertyName": tags.meta,
    }),
  ],
});

const guard = /^if\s+__name__\s*==\s*(["'])__main__\1\s*:\s*(#.*)?$/;

export class Module {
  /** @param {string} file */
  constructor(file) {
    this.path = file;
    this.name = path.basename(file, ".py");
    this.source = readFileSync(file, "utf8").replace(/\r\n?/g, "\n");
    this.lines = this.source.split("\n");
    this.header = readHeader(this.lines);
    this.cells = readCells(this.lines);
    this.imports = importedNames(this.lines);
    this.parse = once(() => python.parse(this.source));
    this.define = once(() => readDefinitions(this.tree, this.source, this.lines));
    this.draw = once(() => readFigures(this));
    this.strip = once(() => strip(withoutDocstrings(this.tree, this.source)));
    this.cellStarts = [0, ...Array.from(this.source.matchAll(/^# %%/gm), ({ index }) => index)];
    /** @type {Map<number, Tree>} */
    this.cellTrees = new Map();
  }

  get tree() {
    return this.parse();
  }

  get definitions() {
    return this.define();
  }

  /** @returns {Map<string, string>} the demo cell that saves a figure, by the figure's name */
  get figures() {
    return this.draw();
  }

  /**
   * One definition. Parsing is what takes longest in a deck, so this looks only at its cell if it can.
   * @param {string} symbol
   * @returns {Span | undefined}
   */
  definition(symbol) {
    const [name] = symbol.split(".");
    const heads = this.source.matchAll(/^(?:async\s+)?(?:class|def)\s+([\p{L}\p{N}_]+)/gmu);
    const head = [...heads].findLast((match) => match[1] === name);
    if (!head) return undefined;
    const inCell = readDefinitions(this.treeAt(head.index), this.source, this.lines);
    return inCell.get(symbol) ?? this.definitions.get(symbol);
  }

  /**
   * @param {number} offset
   * @returns {Tree} of the cell there; of all, where a cell is none without the others
   */
  treeAt(offset) {
    const i = this.cellStarts.findLastIndex((start) => start <= offset);
    const tree = this.cellTrees.get(i) ?? parseCell(this.source, this.cellStarts[i], this.cellStarts[i + 1]);
    this.cellTrees.set(i, tree);
    return hasError(tree) ? this.tree : tree;
  }

  /** Changes with the code of this module and of the project modules it imports, not with comments and docstrings. */
  get hash() {
    const modules = [...this.withImports().values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    const hash = createHash("sha256");
    for (const module of modules) hash.update(`${module.name}\n${module.strip()}`);
    return hash.digest("hex");
  }

  /**
   * @param {Map<string, Module>} [found]
   * @returns {Map<string, Module>} this module and all that it needs
   */
  withImports(found = new Map()) {
    found.set(this.name, this);
    for (const name of this.imports) {
      const file = path.join(path.dirname(this.path), `${name}.py`);
      if (!found.has(name) && existsSync(file)) readModule(file).withImports(found);
    }
    return found;
  }
}

/** @type {(file: string) => Module} */
export const readModule = remember((file) => new Module(file));

/**
 * @param {string} source
 * @param {number} from
 * @param {number} [to]
 * @returns {Tree} with the offsets of the whole source
 */
function parseCell(source, from, to) {
  const { type, children, positions, length } = python.parse(source.slice(from, to));
  return new Tree(type, children, positions.map((position) => from + position), from + length);
}

/** @param {Tree} tree */
function hasError(tree) {
  let found = false;
  tree.iterate({ enter: ({ type }) => (found ||= type.isError) ? false : undefined });
  return found;
}

/**
 * @param {Tree} tree
 * @param {string} source
 */
function withoutDocstrings(tree, source) {
  let text = "";
  let end = 0;
  tree.iterate({
    enter({ node }) {
      const docstring = docstringOf(node, source);
      if (!docstring) return;
      text += source.slice(end, docstring.from);
      end = docstring.to;
    },
  });
  return text + source.slice(end);
}

/**
 * @param {import("@lezer/common").SyntaxNode} node
 * @param {string} source
 * @returns {import("@lezer/common").SyntaxNode | null} the docstring, if node is a module or the body of a definition
 */
function docstringOf(node, source) {
  if (node.name !== "Script" && !/^(Class|Function)Definition$/.test(node.parent?.name ?? "")) return null;
  let first = node.name === "Script" || node.name === "Body" ? node.firstChild : null;
  while (first && /^(:|Comment)$/.test(first.name)) first = first.nextSibling;
  if (first?.name === "StatementGroup") first = first.firstChild;
  const text = first?.name === "ExpressionStatement" ? first.firstChild : null;
  const isText = text && /^(Continued)?String$/.test(text.name) && !text.getChild("FormatString")
    && /^[ru]?["']/i.test(source.slice(text.from, text.from + 2));
  return isText ? text : null;
}

/** @param {string} source */
function strip(source) {
  const code = source.split("\n").map((line) => line.trimEnd()).filter((line) => !/^\s*(#|$)/.test(line));
  return code.map((line) => `${line}\n`).join("");
}

/** @param {string[]} lines */
function importedNames(lines) {
  const names = lines.map((line) => /^\s*(?:from|import)\s+([A-Za-z_]\w*)/.exec(line)?.[1]);
  return new Set(names.filter((name) => name !== undefined));
}

/**
 * @param {string[]} lines
 * @returns {Header}
 */
function readHeader(lines) {
  const start = lines.findIndex((line) => /^# %% \[markdown\]/.test(line)) + 1;
  const after = lines.findIndex((line, i) => i >= start && !/^#( (?!%%)|$)/.test(line));
  const text = lines.slice(start, start && after < 0 ? undefined : after).map((line) => line.slice(2));
  const name = /^# +(.+)/.exec(text[0] ?? "")?.[1].trim();
  /** @type {{label: string, value: string}[]} */
  const bullets = [];
  for (const line of text.slice(1)) {
    const [, label, value] = /^- \*\*(\w+)\*\*: *(.*)$/.exec(line) ?? [];
    if (label) bullets.push({ label, value });
    else if (/^ {2,}\S/.test(line) && bullets.length) bullets[bullets.length - 1].value += ` ${line.trim()}`;
  }
  const all = (/** @type {string} */ wanted) =>
    bullets.filter(({ label }) => label === wanted).map(({ value }) => value.trim());
  const papers = all("Paper").map(readPaper);
  const error = !start || !name
    ? 'it has no header: start it with "# %% [markdown]" and "# # NAME"'
    : papers.includes(null)
      ? "in its header, a Paper is not AUTHORS. *TITLE*. VENUE YEAR. [ID](URL)"
      : null;
  return {
    name: name ?? "",
    papers: papers.filter((paper) => paper !== null),
    idea: all("Idea")[0] ?? "",
    demo: all("Demo")[0] ?? "",
    time: all("Time")[0] ?? "",
    error,
  };
}

/**
 * @param {string} text AUTHORS. *TITLE*. VENUE YEAR. [ID](URL)
 * @returns {Paper | null}
 */
function readPaper(text) {
  const match = /^(.+?)\. +\*(.+?)\*\.? +(.+?),? +(\d{4})\. +\[(.+?)\]\((\S+)\)\.?$/.exec(text);
  if (!match) return null;
  const [, authors, title, venue, year, id, url] = match;
  return { authors: authors.split(/,? and |, /), title, venue, year, id, url };
}

/**
 * @param {string[]} lines
 * @returns {Map<string, Cell>}
 */
function readCells(lines) {
  const starts = lines.flatMap((line, i) => (/^# %%(\s|$)/.test(line) ? [i] : []));
  /** @type {Map<string, Cell>} */
  const cells = new Map();
  starts.forEach((start, i) => {
    const title = lines[start].slice(4).trim();
    if (!title || title.startsWith("[")) return;
    const end = starts[i + 1] ?? lines.length;
    cells.set(slug(title), readCell(title, lines, start + 1, end));
  });
  return cells;
}

/**
 * @param {string} title
 * @param {string[]} lines
 * @param {number} start
 * @param {number} end
 * @returns {Cell}
 */
function readCell(title, lines, start, end) {
  while (end > start && !lines[end - 1].trim()) end -= 1;
  while (start < end && /^\s*(#|$)/.test(lines[start])) start += 1;
  const guarded = lines.slice(start + 1, end);
  const isDemo = guard.test(lines[start] ?? "") && guarded.length > 0
    && guarded.every((line) => /^(\s|$)/.test(line));
  return { title, firstLine: start + (isDemo ? 2 : 1), lastLine: end, isDemo };
}

/** @param {string} title */
export function slug(title) {
  return title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
}

/** @param {string[]} lines the least indentation of all of them */
export function indentation(lines) {
  const indents = lines.filter((line) => line.trim()).map((line) => line.length - line.trimStart().length);
  return indents.length ? Math.min(...indents) : 0;
}

/** @param {string[]} lines */
export function dedent(lines) {
  const indent = indentation(lines);
  return lines.map((line) => line.slice(indent));
}

/**
 * @param {Tree} tree
 * @param {string} source
 * @param {string[]} lines
 * @returns {Map<string, Span>}
 */
function readDefinitions(tree, source, lines) {
  /** @type {Map<string, Span>} */
  const definitions = new Map();
  const lineAt = lineCounter(lines);

  /** @param {import("@lezer/common").SyntaxNode} block @param {string} prefix */
  function visit(block, prefix) {
    for (let node = block.firstChild; node; node = node.nextSibling) {
      const definition = node.name === "DecoratedStatement" ? node.lastChild : node;
      const isClass = definition?.name === "ClassDefinition";
      const name = isClass || definition?.name === "FunctionDefinition" ? definition?.getChild("VariableName") : null;
      if (!definition || !name) continue;
      const symbol = prefix + source.slice(name.from, name.to);
      const text = source.slice(node.from, node.to).trimEnd();
      definitions.set(symbol, { firstLine: lineAt(node.from), lastLine: lineAt(node.from + text.length) });
      const body = definition.getChild("Body");
      if (isClass && !prefix && body) visit(body, `${symbol}.`);
    }
  }
  visit(tree.topNode, "");
  return definitions;
}

/**
 * @param {Module} module
 * @returns {Map<string, string>}
 */
function readFigures({ tree, source, lines, cells }) {
  /** @type {Map<string, string>} */
  const figures = new Map();
  const lineAt = lineCounter(lines);
  const demos = [...cells].filter(([, { isDemo }]) => isDemo);
  tree.iterate({
    enter({ name, node }) {
      const [callee, args] = [node.firstChild, node.lastChild];
      if (name !== "CallExpression" || !callee || !args || source.slice(callee.from, callee.to) !== "figures.save") return;
      const line = lineAt(node.from);
      const cell = demos.find(([, { firstLine, lastLine }]) => firstLine <= line && line <= lastLine);
      const figure = laterString(args, source);
      if (cell && figure) figures.set(figure, cell[0]);
    },
  });
  return figures;
}

/**
 * @param {import("@lezer/common").SyntaxNode} args of a call
 * @param {string} source
 * @returns {string | undefined} the first string that is an argument after the first, and has no name
 */
function laterString(args, source) {
  let position = 0;
  for (let node = args.firstChild; node; node = node.nextSibling) {
    if (node.name === ",") position += 1;
    else if (position && node.name === "String" && node.prevSibling?.name === ",") return source.slice(node.from + 1, node.to - 1);
  }
  return undefined;
}

/**
 * @param {string[]} lines
 * @returns {(offset: number) => number} the line, from 1, of an offset; offsets come in any order
 */
function lineCounter(lines) {
  let end = 0;
  const ends = lines.map((line) => (end += line.length + 1));
  return (offset) => {
    let low = 0;
    let high = ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] > offset) high = middle;
      else low = middle + 1;
    }
    return low + 1;
  };
}
