/** The front matter of a Markdown file, which makes it a deck: found here, understood in deck.mjs. */
import { readFileSync } from "node:fs";
import { remember } from "./remember.mjs";

/** What the first lines must look like, for messages. */
export const frontMatterForm = "a line ---, then title:, family: and date:, each on its line, then a line ---";

/**
 * @param {string} text of a file
 * @returns {{yaml: string | null, line: number, body: string, firstLine: number, isMeant: boolean}} what stands
 *   between its marks, null if there are none; the line on which that starts; the rest, and its first line; and whether
 *   the file starts as one with front matter does, perhaps of another tool
 */
export function splitFrontMatter(text) {
  const whole = text.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n");
  const [block, opening, yaml] =
    /^((?:[ \t]*\n)*---[ \t]*\n)((?:(?!(?:---|\.\.\.)[ \t]*(?:\n|$)).*\n)*)(?:---|\.\.\.)[ \t]*(?:\n|$)/.exec(whole) ?? [""];
  return {
    yaml: yaml ?? null,
    line: lineCount(opening ?? "") + 1,
    body: whole.slice(block.length),
    firstLine: lineCount(block) + 1,
    isMeant: /^\s*(---|\+\+\+|```+ *ya?ml|(title|family|date):)/.test(whole),
  };
}

/** @type {(file: string) => boolean} whether a Markdown file is a deck, or is meant to be one */
export const isDeck = remember((file) => splitFrontMatter(readFileSync(file, "utf8")).isMeant);

/** @param {string} text */
const lineCount = (text) => text.split("\n").length - 1;
