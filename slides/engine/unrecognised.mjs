/** What looks like Markdown and is none, so that a slide would show it as it is written. */

/** @typedef {import("markdown-it").Token} Token */

export const noFootnotes = "there are no footnotes on slides: say it in the notes, or cite [Name, year](address)";
const spaces = "\\u00A0\\u2000-\\u200B\\u202F\\u3000";
const isFormula = (/** @type {string} */ text) => /[\\^_={}]/.test(text) || /^\s*[a-z]'?\s*$/i.test(text);

/**
 * Patterns of text that markdown-it has left as it was, and what to write.
 * @type {[RegExp, string, ((inside: string) => boolean)?][]}
 */
const patterns = [
  [/!\[[^\]\n]*\]\s?\([^)\n]*\)/, "it is not recognised as an image: put a file with spaces between < and >, as in ![text](<a b.svg>)"],
  [/\[[^\]\n]+\]\([^)\n]*\)/, "it is not recognised as a link: put an address with spaces between < and >, as in [text](<a b>)"],
  [/\[[^\]\n]+\] \((?:https?:|\.\.?\/)[^)\n]*\)|\([^)\n]+\)\[(?:https?:|\.\.?\/)[^\]\n]*\]/, "it is not recognised as a link: write [text](address)"],
  [/\[\^[^\]\s]+\]/, noFootnotes],
  [/(?<![\w)\]])\[[^\]\n\d]+\]\[[^\]\n\d]*\]/, "this reference link leads nowhere: write [text](address)"],
  [/\[\[\p{L}[^\]\n]*\]\]/u, "it is not recognised as a link: write [text](address)"],
  [new RegExp(`^(?:#{2,6}[^#\\s]|#{1,6}[${spaces}]|\\uFF03)`, "m"), "it is not recognised as a heading: write # and an ordinary space"],
  [/\$\$/, "it is not recognised as a formula: $$ stands at its begin and at its end"],
  [/\$ +([^$\n]*?) *\$|\$(?!\d|[A-Z_]{2})([^$\n]*?) +\$/, "it is not recognised as a formula: no space stands beside the $, as in $x$", isFormula],
  [/\$(?![A-Z_]{2})([a-zA-Z\\({][^$\n]*)/, "it is not recognised as a formula: its second $ is missing", (inside) => /[\\^_{]/.test(inside)],
  [/^\s*\|[^|\n]+\|[^|\n]+\|.*$/m, "it is not recognised as a table: it needs a line |---|---| below its header, and an empty line above"],
  [/^\[[ xX]\] /, "there are no task lists on slides: write a list"],
  [/^\s*[•◦▪‣●]/m, "it is not recognised as a list: write - before each entry"],
  [/^1[.)][^\s\d].*\n2[.)][^\s\d]/m, "it is not recognised as a list: write a space after each number"],
  [/(?<![\w*])\*[^\s*][^*\n]* \*(?![\w*])/, "it is not recognised as italic: no space stands inside of the *"],
  [/^-[^\s-].*\n-[^\s-]/m, "it is not recognised as a list: write a space after each -"],
  [/^(?:speaker notes? *[:\uFF1A]|(?:speaker )?notes? *[-\u2013\u2014] )/i, "notes begin with Note:, after an empty line"],
  [/^:::/m, "::: is not known here: write HTML such as <div class=\"…\">"],
  [/(?<![\w=])==[^\s=](?:[^=\n]*[^\s=])?==(?![\w=])/, "== is not known here: write <mark>text</mark>"],
  [/\*\* [^*\n]+\*\*|\*\*[^*\n]+ \*\*/, "it is not recognised as bold: no space stands inside of the **"],
  [/(?<![\w*])\*\*(?!kw)[^\s*]/, "it is not recognised as bold: its second ** is missing"],
  [/&(?:amp|lt|gt|nbsp|quot|copy|times|rarr|larr|ndash|mdash|hellip|alpha|beta|le|ge)\b(?![;=])/, "an HTML entity ends with ;"],
];

/** Patterns of the source, where markdown-it takes the backslashes away. */
const escaped = /(?<!\w)\\\(([^\n]*?)\\\)|\\\[((?:(?!\\\])[^])*)\\\](?!\()/g;

/**
 * @param {Token} inline
 * @returns {{at: number, message: string}[]} mistakes, each with its place in the token's content
 */
export function mistakesIn(inline) {
  const children = inline.children ?? [];
  const text = children.map(({ type, content }) => (type === "text" ? content : /break$/.test(type) ? "\n" : "\uFFFC")).join("");
  /** @type {{at: number, message: string}[]} */
  const mistakes = [];
  for (const [pattern, message, isMeant = () => true] of patterns) {
    const found = pattern.exec(text);
    if (!found || !isMeant(found[1] ?? found[2] ?? "")) continue;
    const at = inline.content.indexOf(found[0].trim().split("\uFFFC")[0]);
    if (at < 0) continue; // it was escaped
    mistakes.push({ at, message: `${found[0].trim().split("\n")[0].replaceAll("\uFFFC", "…")}: ${message}` });
    break;
  }
  for (const { type, content, meta } of children)
    if (type === "math_inline" && /^\s|\s$/.test(content) && !isFormula(content))
      mistakes.push({ at: meta.start, message: `$${content}$: it is taken for a formula: write \\$ for a dollar` });
  const plain = inline.content.replace(/(`+)[^]*?[^`]\1(?!`)/g, (code) => code.replace(/./g, " "));
  for (const { 0: whole, 1: first, 2: second = "", index } of plain.matchAll(escaped))
    if (first === undefined ? /[\\^_={}]/.test(second) : isFormula(first))
      mistakes.push({ at: index, message: `${whole.split("\n")[0]}: it is not recognised as a formula: write $x$, or $$x$$ for one of its own` });
  return mistakes;
}

/**
 * @param {Token} token of a block
 * @param {(line: number) => string} source a line of the deck, counted as the token counts
 * @returns {string | undefined} what is wrong with it
 */
export function mistakeOf(token, source) {
  const [from, to] = token.map ?? [0, 0];
  const last = to > 0 ? source(to - 1) : "";
  if (token.type === "fence" && (to - from < 2 || !/(`{3,}|~{3,})\s*$/.test(last)))
    return `the code is not closed: end it with a line ${token.markup}`;
  if (token.type === "math_block" && !/\$\$\s*$/.test(last)) return "the formula is not closed: end it with $$";
  if (token.type === "heading_open" && /^[-=]/.test(token.markup))
    return `a line ${token.markup}${token.markup} below text makes a heading of it: write ## before the title, and <!--s--> between slides`;
  if (token.type === "hr" && token.markup.startsWith("-"))
    return "--- is not between slides here: write <!--s-->, with empty lines around it, or *** for a line";
}

/**
 * @param {Token[]} tokens of a block
 * @param {(line: number) => string} source
 * @returns {{line: number, message: string}[]} rows of tables of which cells would be lost
 */
export function lostCells(tokens, source) {
  let columns = 0;
  return tokens.flatMap((token, i) => {
    if (token.type === "thead_open")
      columns = tokens.slice(i, tokens.findIndex(({ type }, j) => j > i && type === "thead_close")).filter(({ type }) => type === "th_open").length;
    if (token.type !== "tr_open" || !token.map) return [];
    const row = source(token.map[0]).replace(/^[\s>]*\|?/, "").replace(/\|\s*$/, "");
    const cells = row.split(/(?<!\\)\|/).length;
    return cells <= columns ? [] : [{
      line: token.map[0], message: `this row has ${cells} cells and its table ${columns} columns: write \\| for a | in a cell, in code as well`,
    }];
  });
}

/**
 * @param {string} comment
 * @returns {string | undefined} what was meant by a comment that nobody would see
 */
export function misspeltComment(comment) {
  if (/^[SV]$/.test(comment)) return `write <!--${comment.toLowerCase()}--> in small letters`;
  const [, word] = /^\.?\s*(slide|element)s?\b\s*[:.]?\s*[\w-]+\s*=/i.exec(comment) ?? [];
  if (word && !/^\.(slide|element):/.test(comment)) return `write <!-- .${word.toLowerCase()}: key="value" -->`;
}
