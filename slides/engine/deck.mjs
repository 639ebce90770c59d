/** Reads a deck: from Markdown to slides, each with its blocks, links, notes and problems. */
import MarkdownIt from "markdown-it";
import math from "@vscode/markdown-it-katex";
import { parseYamlFrontMatter } from "reveal-md/lib/util.js";
import { frontMatterForm, splitFrontMatter } from "./front-matter.mjs";
import { HtmlReader, readAttributes } from "./html.mjs";
import { planProblem } from "./plan.mjs";
import { lostCells, mistakeOf, mistakesIn, misspeltComment, noFootnotes } from "./unrecognised.mjs";

/**
 * @typedef {import("markdown-it").Token} Token
 * @typedef {"code" | "fact" | "setting" | "record" | "paper" | "proof" | "figure" | "citation"
 *   | "deck-link" | "link"} Kind
 * @typedef {import("./html.mjs").Attributes} Attributes
 * @typedef {object} Link
 * @property {Kind} kind
 * @property {number} line of the deck's file
 * @property {string} text
 * @property {string} href
 * @property {string} title
 * @property {boolean} block alone in its paragraph, so that it becomes a code block or a figure
 * @property {boolean} inTable
 * @property {Layout} layout of its slide
 * @property {Attributes} attributes
 * @property {import("./resolve.mjs").Reference} [reference] once it is resolved
 * @typedef {{line: number, message: string}} Problem
 * @typedef {{kind: "prose" | "link" | "fence" | "mermaid", tokens: Token[], link?: Link, attributes: Attributes}} Block
 * @typedef {"flow" | "wide" | "wide pair" | "beside" | "above" | "beside above" | "beside drawn"} Layout
 *   above: code above its drawing, without and with prose beside them; drawn: code beside its drawing, below prose
 * @typedef {object} Slide
 * @property {number} line
 * @property {string} id
 * @property {Token[]} title its heading
 * @property {Block[]} blocks
 * @property {Layout} layout
 * @property {Token[]} notes
 * @property {Attributes} attributes
 * @property {Link[]} links
 * @property {Problem[]} problems
 * @property {number} [page] of the references, from 0, where they need several slides
 * @typedef {{title: string, family: string, date: string}} Meta
 * @typedef {{meta: Meta, stacks: Slide[][]}} Deck
 * @typedef {{lines: string[], firstLine: number}} Source the Markdown, and the line of the file on which it starts
 */

export const markdown = new MarkdownIt({ html: true });
markdown.use(/** @type {any} */ (math.default));
export const encodeLink = markdown.normalizeLink;
markdown.normalizeLink = (/** @type {string} */ href) => href;
markdown.validateLink = () => true; // the resolver says where a link may lead, and what is wrong with another one

// Inline tokens have no line: remember where each starts in the text of its paragraph.
markdown.inline.State = class extends markdown.inline.State {
  /** @type {InstanceType<typeof markdown.inline.State>["push"]} */
  push(type, tag, nesting) {
    const token = super.push(type, tag, nesting);
    token.meta = { start: this.pos };
    return token;
  }
};

/** What begins a slide's notes: "Note:", with a space before the colon in French and a wide colon in Chinese. */
const notesMark = /^notes?[ \u00A0\u202F]?[:\uFF1A]\s*/i;

/**
 * @param {string} text
 * @returns {Deck}
 */
export function readDeck(text) {
  const { meta, body, firstLine, problems, isRecognised } = readFrontMatter(text);
  const source = { lines: body.split("\n"), firstLine };
  /** @type {{references?: Record<string, unknown>}} */
  const definitions = {};
  const stacks = split(markdown.parse(body, definitions), firstLine).map((stack) =>
    stack.map(({ tokens, line }) => new SlideReader(source, line).read(tokens)));
  const [first, ...others] = stacks.flat();
  if (!isRecognised) first.problems = []; // whatever else is wrong with it comes of that
  first.problems.push(...problems);
  if (isRecognised && first.title[0]?.tag !== "h1")
    first.problems.push({ line: first.line, message: 'the first slide needs a title: begin it with "# Title"' });
  for (const { title, line, problems: own } of others)
    if (title[0]?.tag === "h1")
      own.push({ line, message: 'only the first slide has a "# Title": begin this one with "## Title"' });
  if (Object.keys(definitions.references ?? {}).some((name) => name.startsWith("^"))) {
    const line = firstLine + source.lines.findIndex((text) => /^ {0,3}\[\^/.test(text));
    [first, ...others].findLast((slide) => slide.line <= line)?.problems.push({ line, message: noFootnotes });
  }
  giveIds([first, ...others]);
  return { meta, stacks };
}

/** @param {string} text of a deck: what a link to one of its slides may name */
export function anchorsOf(text) {
  return readDeck(text).stacks.flat().map(({ id }) => id);
}

/** @param {string} text */
export function readFrontMatter(text) {
  const { yaml, line, body, firstLine, isMeant } = splitFrontMatter(text);
  /** @type {Problem[]} */
  const problems = [];
  /** @type {Record<string, unknown>} */
  let options = {};
  try {
    options = yaml?.trim() ? parseYamlFrontMatter(`---\n${yaml}---\n`).yamlOptions : {};
  } catch (error) {
    const { mark, reason } = /** @type {any} */ (error); // without them there was nothing but comments
    if (mark) problems.push({ line: line + mark.line, message: `the front matter is not valid YAML: ${reason}` });
  }
  const isRecognised = !isMeant || problems.length > 0 || Object.keys(options).length > 0;
  if (!isRecognised)
    problems.push({ line: 1, message: `the front matter is not recognised: begin the file with ${frontMatterForm}` });
  const show = (/** @type {unknown} */ value) =>
    value instanceof Date ? value.toISOString().slice(0, 10) : value instanceof Object ? "" : String(value ?? "");
  const meta = { title: show(options.title), family: show(options.family), date: show(options.date) };
  const missing = Object.entries(meta).flatMap(([key, value]) => (value ? [] : [key]));
  if (missing.length && !problems.length)
    problems.push({ line: 1, message: `the front matter lacks ${missing.join(", ")}` });
  return { meta, body, problems, firstLine, isRecognised };
}

/**
 * @param {Token[]} tokens
 * @param {number} firstLine
 * @returns {{tokens: Token[], line: number}[][]} stacks of slides: at least one
 */
function split(tokens, firstLine) {
  let slide = { tokens: /** @type {Token[]} */ ([]), line: firstLine };
  const stacks = [[slide]];
  for (const token of tokens) {
    const separator = token.type === "html_block" && /^<!--\s*([sv])\s*-->\s*$/.exec(token.content)?.[1];
    if (!separator || token.level > 0 || !token.map) {
      if (!slide.tokens.length && token.map) slide.line = firstLine + token.map[0];
      slide.tokens.push(token);
      continue;
    }
    slide = { tokens: [], line: firstLine + token.map[1] };
    if (separator === "s") stacks.push([slide]);
    else stacks.at(-1)?.push(slide);
  }
  const filled = stacks.map((stack) => stack.filter(({ tokens }) => tokens.length)).filter((stack) => stack.length);
  return filled.length ? filled : [[{ tokens: [], line: firstLine }]];
}

/** Reads one slide. */
class SlideReader {
  /**
   * @param {Source} source
   * @param {number} line
   */
  constructor(source, line) {
    this.source = source;
    /** @type {Slide} */
    this.slide = {
      line, id: "", title: [], blocks: [], layout: "flow", notes: [], attributes: {}, links: [], problems: [],
    };
    this.html = new HtmlReader((at, message) => this.slide.problems.push({ line: at, message }));
    /** @type {Token[]} */
    this.open = [];
    this.inNotes = false;
  }

  /** @param {Token[]} tokens */
  read(tokens) {
    const { slide } = this;
    for (let start = 0, end = 0; start < tokens.length; start = end) {
      end = blockEnd(tokens, start);
      const block = tokens.slice(start, end);
      const startsNotes = block[0].type === "paragraph_open" && notesMark.test(block[1].content);
      if (!startsNotes) this.checkNotesMark(block);
      else if (!this.inNotes) {
        removeNotesMark(block[1]);
        this.html.end(this.lineOf(block[0])); // HTML of the slide ends before its notes
        this.html.open = [];
      }
      this.inNotes ||= startsNotes;
      this.readTokens(block);
      if (this.inNotes) slide.notes.push(...block);
      else this.addBlock(block);
    }
    this.html.end(slide.line);
    const mistake = planProblem(slide);
    if (mistake) this.problem(slide.line, mistake);
    this.layOut();
    return slide;
  }

  /** @param {Token} token */
  lineOf(token) {
    const { map } = token.map ? token : this.open.findLast((outer) => outer.map) ?? token;
    return this.source.firstLine + (map?.[0] ?? 0);
  }

  /** @param {Token[]} block swallows a "Note:" that has no empty line before it, where a reader would see that line */
  checkNotesMark(block) {
    const [from, to] = block[0].map ?? [0, 0];
    const source = this.source.lines.slice(from, to).join("\n");
    const lines = source.replace(/<!--[^]*?-->/g, (comment) => comment.replace(/.+/g, "")).split("\n");
    const isCode = (/** @type {number} */ line) => block.some(({ type, map }) =>
      /^(fence|code_block|math_block)$/.test(type) && map && map[0] <= line && line < map[1]);
    const at = lines.findIndex((line, i) => notesMark.test(line) && !isCode(from + i));
    if (at >= 0) this.problem(this.source.firstLine + from + at, '"Note:" needs an empty line before it');
  }

  /**
   * @param {number} line
   * @param {string} message
   */
  problem(line, message) {
    this.slide.problems.push({ line, message });
  }

  /** @param {Token[]} tokens of one block */
  readTokens(tokens) {
    const source = (/** @type {number} */ line) => this.source.lines[line] ?? "";
    for (const { line, message } of lostCells(tokens, source)) this.problem(this.source.firstLine + line, message);
    for (const token of tokens) {
      const mistake = mistakeOf(token, source);
      if (mistake) this.problem(this.lineOf(token), mistake);
      if (token.type === "html_block") this.readHtml(token, this.lineOf(token), () => this.elementBefore());
      if (token.type === "inline") this.readInline(token);
      if (/^(fence|code_block|math_block)$/.test(token.type)) token.meta = { line: this.lineOf(token) };
      if (token.nesting === 1) this.open.push(token);
      if (token.nesting === -1) this.open.pop();
    }
  }

  /**
   * Takes the comments out of a piece of HTML and does what they say.
   * @param {Token} token
   * @param {number} line
   * @param {() => Token | Link | Block | undefined} element what ".element" speaks of
   */
  readHtml(token, line, element) {
    token.content = this.html.read(token.content, line, (comment) => {
      const [, directive, rest] = /^\.(slide|element):([^]*)$/.exec(comment) ?? [];
      if (/^[sv]$/.test(comment))
        this.problem(line, `<!--${comment}--> must stand alone on its line, with an empty line before it`);
      const misspelt = misspeltComment(comment);
      if (misspelt) this.problem(line, `<!--${comment.split("\n")[0]}-->: ${misspelt}`);
      if (comment === "references") token.type = "references";
      if (!directive) return;
      const attributes = readAttributes(rest);
      const target = directive === "slide" ? this.slide : element();
      if (!attributes || !target) this.problem(line, `<!-- .${directive}: … --> is not understood: write key="value"`);
      else {
        this.html.checkAttributes(attributes, line);
        addAttributes(target, attributes);
      }
    });
  }

  elementBefore() {
    const block = this.slide.blocks.at(-1);
    if (this.open.length) return this.open.at(-1);
    return block?.kind === "prose" ? block.tokens[0] : block ?? this.slide.title[0];
  }

  /** @param {Token} token */
  readInline(token) {
    const children = token.children ?? [];
    this.readLinks(token, children);
    if (!this.inNotes && this.open.length === 1 && this.open[0].type === "paragraph_open" && isMedia(children))
      for (const { meta } of children) if (meta?.link) meta.link.block = true;
    if (!this.inNotes)
      for (const { at, message } of mistakesIn(token)) this.problem(this.lineIn(token, at), message);
    children.forEach((child, i) => {
      const line = this.lineIn(token, child.meta?.start ?? 0);
      if (child.type.startsWith("math")) child.meta.line = line;
      if (child.type === "html_inline") this.readHtml(child, line, () => this.elementInline(children, i));
    });
  }

  /**
   * @param {Token} inline
   * @param {number} at a place in its content
   */
  lineIn(inline, at) {
    return this.lineOf(inline) + inline.content.slice(0, at).split("\n").length - 1;
  }

  /**
   * Reads the links of a line, also those in the alternative text of its images.
   * @param {Token} inline
   * @param {Token[]} children of the line, or of an image
   * @param {number} at where they start in the line's content
   */
  readLinks(inline, children, at = 0) {
    children.forEach((child, i) => {
      const start = at + (child.meta?.start ?? 0);
      if (child.type === "image" || child.type === "link_open")
        this.slide.links.push(this.readLink(children, i, this.lineIn(inline, start)));
      if (child.type === "image") this.readLinks(inline, child.children ?? [], start + "![".length);
    });
  }

  /**
   * @param {Token[]} children
   * @param {number} i
   * @param {number} line
   * @returns {Link}
   */
  readLink(children, i, line) {
    const child = children[i];
    const isImage = child.type === "image";
    const end = isImage ? i : children.findIndex((other, j) => j > i && other.type === "link_close");
    const text = (isImage ? contentOf(child.children ?? []) : textOf(children.slice(i + 1, end))).trim();
    const href = String(child.attrGet(isImage ? "src" : "href"));
    /** @type {Link} */
    const link = {
      kind: isImage ? "figure" : kindOf(href, text),
      line, text, href,
      title: child.attrGet("title") ?? "",
      block: false,
      inTable: this.open.some(({ type }) => type === "table_open"),
      layout: "flow",
      attributes: {},
    };
    child.meta.link = link;
    children[end].meta.link = link;
    return link;
  }

  /**
   * The element that a comment directly follows, or else the one that it stands in.
   * @param {Token[]} children
   * @param {number} i
   */
  elementInline(children, i) {
    const before = children.slice(0, i).filter(({ type, content }) => type !== "text" || content);
    const last = before.at(-1);
    const medium = before.findLast(({ content, meta }) => content.trim() || meta?.link)?.meta?.link;
    if (medium?.block) return medium;
    if (last?.meta?.link || last?.type === "code_inline") return last.meta.link ?? last;
    if (last?.nesting === -1) return before.findLast(({ nesting, level }) => nesting === 1 && level === last.level);
    return this.open.at(this.open.at(-2)?.type === "list_item_open" ? -2 : -1);
  }

  /** @param {Token[]} tokens */
  addBlock(tokens) {
    const { slide } = this;
    const [first, inline] = tokens;
    const prose = { kind: /** @type {const} */ ("prose"), tokens, attributes: {} };
    if (/^h[12]$/.test(first.tag)) {
      if (!slide.blocks.length && !slide.title.length) slide.title = tokens;
      else this.problem(this.lineOf(first), "a second heading of a slide: begin a new slide with <!--s-->, or use ###");
    } else if (first.type === "fence" || first.type === "code_block") {
      const kind = /^\s*\{?\.?mermaid\b/i.test(first.info) ? "mermaid" : "fence";
      slide.blocks.push({ kind, tokens, attributes: {} });
    } else if (first.type === "paragraph_open" && isMedia(inline.children ?? [])) {
      for (const child of inline.children ?? [])
        if (child.meta?.link && child.nesting >= 0)
          slide.blocks.push({ kind: "link", tokens, link: child.meta.link, attributes: child.meta.link.attributes });
    } else if (first.type !== "html_block" || first.content.trim()) slide.blocks.push(prose);
  }

  layOut() {
    const { slide } = this;
    const media = slide.blocks.filter(({ kind }) => kind !== "prose");
    const hasProse = media.length < slide.blocks.length;
    if (media.length > 2)
      this.problem(slide.line, `a slide has room for two pictures or pieces of code, not ${media.length}`);
    const isCode = media.map(({ kind, link }) => kind === "fence" || link?.kind === "code");
    const isDrawn = isCode.includes(true) && isCode.includes(false);
    slide.layout = !media.length ? "flow" : isDrawn ? hasProse ? "beside above" : "above"
      : hasProse ? "beside" : media.length === 1 ? "wide" : "wide pair";
    for (const link of slide.links) link.layout = slide.layout;
  }
}

/**
 * @param {Token[]} tokens
 * @param {number} start
 * @returns {number} the end of the block that starts there
 */
function blockEnd(tokens, start) {
  let end = start;
  for (let depth = 0; end < tokens.length; ) {
    depth += tokens[end].nesting;
    end += 1;
    if (depth <= 0) break;
  }
  return end;
}

/** @param {Token} inline the first paragraph of the notes */
function removeNotesMark({ children }) {
  if (!children?.length) return;
  children[0].content = children[0].content.replace(notesMark, "");
  if (!children[0].content && children[1]?.type === "softbreak") children.splice(0, 2);
}

/** @param {Token[]} children of a paragraph: whether all are pictures and links to code, which become blocks */
function isMedia(children) {
  const rest = children.filter((child, i) => {
    const link = children.slice(0, i + 1).findLast(({ type }) => /^link_/.test(type));
    const inCode = link?.meta.link.kind === "code" && (link.nesting === 1 || link === child);
    const isBlank = /break$/.test(child.type) || /^(<!--[^]*-->)?\s*$/.test(child.content);
    return !inCode && child.type !== "image" && !(isBlank && child.nesting === 0);
  });
  return !rest.length && children.some(({ type }) => type === "image" || type === "link_open");
}

/** @param {Token[]} tokens */
function textOf(tokens) {
  return contentOf(tokens.filter(({ type }) => type !== "html_inline"));
}

/** @param {Token[]} tokens */
function contentOf(tokens) {
  return tokens.map(({ type, content }) => (/break$/.test(type) ? " " : content)).join("");
}

/**
 * @param {string} href
 * @param {string} text
 * @returns {Kind}
 */
function kindOf(href, text) {
  const [file, fragment] = href.split(/#(.*)/s);
  if (/^([a-z][a-z0-9+.-]*:|\/\/)/i.test(href)) return /\b(19|20)\d\d[a-z]?$/.test(text) ? "citation" : "link";
  if (!file || file.endsWith(".md")) return "deck-link";
  if (!fragment) return "link";
  if (/^(\.\.\/)+code\/.*\.py$/.test(file))
    return fragment.startsWith("facts.") ? "fact" : fragment.startsWith("settings.") ? "setting" : "code";
  if (/^(\.\.\/)+static\/results\/.*\.json$/.test(file)) return "record";
  if (/^(\.\.\/)+papers\/.*\.json$/.test(file)) return "paper";
  if (/^(\.\.\/)+tests\/.*\.py$/.test(file)) return "proof";
  return "link";
}

/**
 * @param {Token | Slide | Link | Block} target
 * @param {Attributes} attributes
 */
function addAttributes(target, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if ("attributes" in target) {
      const old = key === "class" ? target.attributes.class : undefined;
      target.attributes[key] = old ? `${old} ${value}` : value;
    } else if (key === "class") target.attrJoin(key, value);
    else target.attrSet(key, value);
  }
}

/** @param {Slide[]} slides get the names that GitHub gives their headings, or those that they ask for */
function giveIds(slides) {
  const given = new Set();
  for (const { attributes: { id }, line, problems } of slides) {
    if (id === undefined) continue;
    if (given.has(id)) problems.push({ line, message: `another slide has the id "${id}", too` });
    if (!/^\p{L}[\p{L}\p{N}_-]*$/u.test(id))
      problems.push({ line, message: `the id "${id}" cannot stand in an address: take letters, digits, - and _` });
    given.add(id);
  }
  for (const slide of slides) {
    const name = anchor(textOf(slide.title[1]?.children ?? []));
    let id = name;
    for (let count = 1; id && given.has(id); count++) id = `${name}-${count}`;
    slide.id = slide.attributes.id ?? id;
    given.add(slide.id);
  }
}

/** @param {string} title */
function anchor(title) {
  const name = title.trim().toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/\s/g, "-");
  return /^\d+$/.test(name) ? `slide-${name}` : name; // Reveal takes a number for a position.
}
