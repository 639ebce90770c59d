/** HTML: what a deck may write of it, and how we write it. */
import MarkdownIt from "markdown-it";

/** @typedef {Record<string, string>} Attributes */

const voidElements = ["br", "hr", "wbr"];
const elements = new Set([
  ...voidElements,
  ..."abbr b cite code em i kbd mark q s small span strong sub sup u".split(" "),
  ..."dd details div dl dt li ol p summary table tbody td th thead tr ul".split(" "),
]);

/** A tag as CommonMark has it, which a browser reads in the same way: what is anything else is refused. */
const attributePattern = /\s+([a-z][\w:-]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'=<>`]+)))?/i;
const tagPattern = new RegExp(`<(/?)([a-z][a-z0-9-]*)((?:${attributePattern.source})*)\\s*/?>`, "gi");

/** What a deck may say of an element or a slide: nothing that runs, and nothing that loads. */
const attributeNames = new RegExp(`^(${[
  "class|id|title|lang|dir|role|aria-[a-z]+|style",
  "align|width|height|colspan|rowspan|headers|scope|start|reversed|value|type|open|datetime",
  "data-id|data-fragment-index|data-auto-animate(-[a-z]+)*|data-autoslide|data-plan|data-timing|data-state",
  "data-visibility|data-transition(-speed)?|data-background-(color|gradient|opacity|transition)",
].join("|")})$`);

/** Style without url(), image-set() and the like, and without escapes that could spell them. */
const functions = "calc|min|max|clamp|var|rgba?|hsla?|oklch|repeat|minmax|rotate|scale|translate|(?:linear|radial|conic)-gradient";
const styleValue = new RegExp(`^(?:(?<![\\w-])(?:${functions})\\(|[^\\\\&@<>("']|(?<![\\w-])\\()*$`, "i");

/** Reads the HTML of one slide: takes comments out, reports what would break or bypass the slide. */
export class HtmlReader {
  /** @param {(line: number, message: string) => void} report */
  constructor(report) {
    this.report = report;
    /** @type {string[]} */
    this.open = [];
    /** @type {Set<string>} */
    this.refused = new Set();
  }

  /**
   * @param {string} html
   * @param {number} line
   * @param {(comment: string) => void} onComment
   * @returns {string} without comments
   */
  read(html, line, onComment) {
    const shown = html.replace(/<!--([^]*?)-->/g, (_, comment) => (onComment(comment.trim()), ""));
    const rest = shown.replace(tagPattern, (tag, closes, name, attributes) => {
      this.readTag(tag, Boolean(closes), name.toLowerCase(), line);
      if (elements.has(name.toLowerCase())) this.checkAttributes(readAttributes(attributes) ?? {}, line);
      return "";
    });
    if (rest.includes("<!--")) this.report(line, "a comment is not closed: end it with -->");
    else if (/<[a-z/!?]/i.test(rest)) this.report(line, `HTML that is not finished: ${rest.trim().split("\n")[0]}`);
    return shown;
  }

  /**
   * @param {string} tag
   * @param {boolean} closes
   * @param {string} name
   * @param {number} line
   */
  readTag(tag, closes, name, line) {
    if (!elements.has(name)) this.refuse(tag, name, line);
    else if (voidElements.includes(name)) return;
    else if (!closes) this.open.push(name);
    else if (this.open.pop() !== name) this.report(line, `${tag} closes what is not open`);
  }

  /**
   * @param {Attributes} attributes of HTML, or of a slide or an element as a comment gives them
   * @param {number} line
   */
  checkAttributes(attributes, line) {
    for (const [name, value] of Object.entries(attributes)) {
      if (!attributeNames.test(name)) this.report(line, `${name} is not an attribute that a deck may use`);
      else if (/^(style|data-background-(color|gradient))$/.test(name) && !styleValue.test(value))
        this.report(line, `${name}="${value}" may load something: write plain values, without url() and escapes`);
    }
  }

  /**
   * @param {string} tag
   * @param {string} name
   * @param {number} line
   */
  refuse(tag, name, line) {
    if (this.refused.has(name)) return;
    this.refused.add(name);
    if (name === "img") this.report(line, "write a picture as ![alternative text](file), so that it is checked");
    else if (name === "a") this.report(line, "write a link as [text](target), so that it is checked");
    else this.report(line, `${tag} is not HTML that a deck may use: put code into backticks, or write &lt;${name}&gt;`);
  }

  /** @param {number} line */
  end(line) {
    for (const name of this.open) this.report(line, `<${name}> is not closed on its slide`);
  }
}

/**
 * @param {string} text key="value" …
 * @returns {Attributes | null} null if it is something else
 */
export function readAttributes(text) {
  /** @type {Attributes} */
  const attributes = {};
  const rest = text.trim() && ` ${text}`.replace(new RegExp(attributePattern, "gi"), (_, name, ...values) => {
    // Of two that have the same name, browsers take the first.
    if (!Object.hasOwn(attributes, name)) attributes[name] = values.slice(0, 3).find((value) => value !== undefined) ?? "";
    return "";
  });
  return Object.keys(attributes).length && !rest.trim() ? attributes : null;
}

export const { escapeHtml: escape } = new MarkdownIt().utils;

/**
 * @param {Record<string, string | number | undefined>} attributes
 */
export function attributesHtml(attributes) {
  return Object.entries(attributes)
    .map(([key, value]) => (value === undefined ? "" : ` ${key}="${escape(String(value))}"`))
    .join("");
}

/**
 * @param {string | undefined} name
 * @param {Record<string, string>} attributes
 */
export function withClass(name, { class: own, ...others }) {
  const names = [name, own].filter(Boolean).join(" ");
  return names ? { class: names, ...others } : others;
}
