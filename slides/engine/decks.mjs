/**
 * The decks of slides/: which there are, what they say of themselves, and their HTML.
 * Packages are imported where they are needed: npm start asks for names before it has any.
 */
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { UserError, here, shown } from "./command.mjs";

/**
 * @typedef {{name: string, title: string, family: string, slides: number}} Deck
 * @typedef {{assets?: string, watch?: boolean, sources?: boolean, linkDeck?: (name: string) => string}} RenderOptions
 * @typedef {(name: string, options?: RenderOptions) => Promise<string>} RenderDeck
 */

/**
 * @param {string} root the repository
 * @returns {Promise<string[]>} file names such as "cnn.md"
 */
export async function deckNames(root) {
  const entries = await readdir(path.join(root, "slides"), { withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && /^[^.].*\.md$/.test(entry.name))
    .map((entry) => entry.name)
    .sort();
}

/**
 * @param {string} root
 * @returns {Promise<Deck[]>}
 */
export async function describeDecks(root) {
  const { readDeck } = await import("./deck.mjs");
  const names = await deckNames(root);
  return Promise.all(names.map(async (name) => {
    const { meta, stacks } = readDeck(await readFile(path.join(root, "slides", name), "utf8"));
    return { name, title: meta.title || name, family: meta.family, slides: stacks.flat().length };
  }));
}

/**
 * reveal-md reads the command line and the working directory when it is imported.
 * @param {string} root
 * @returns {Promise<RenderDeck>}
 */
export async function deckRenderer(root) {
  process.chdir(root);
  process.argv.splice(2);
  const { render } = await import("reveal-md/lib/render.js");
  const { readFrontMatter } = await import("./deck.mjs");
  return async (name, options) => {
    const deck = path.join(root, "slides", name);
    const { meta } = readFrontMatter(await readFile(deck, "utf8"));
    // The text is the preprocessor's: what reveal-md finds in front matter could name another template or preprocessor.
    return render("", { deck, assets: "", title: meta.title || name, ...options });
  };
}

/**
 * @param {string} root
 * @param {string} file as the user names it: relative to where they stand, or to the root
 * @param {number} [exitCode]
 * @returns {Promise<string>} its name in slides/
 */
export async function existingDeck(root, file, exitCode) {
  const decks = await deckNames(root);
  const folder = path.join(root, "slides");
  const name = [here, root].map((start) => path.relative(folder, path.resolve(start, file)))
    .find((candidate) => decks.includes(candidate));
  if (!name) throw new UserError(
    `There is no deck ${file}. The decks: ${decks.map((deck) => shown(path.join(folder, deck))).join(", ")}.`, exitCode);
  return name;
}

/**
 * Refuses to publish what would be an error slide or a dead link.
 * @param {string} root
 * @param {string[]} names of decks
 * @param {string} refusal the last line, after one for each problem with its deck and line
 */
export async function refuseProblems(root, names, refusal) {
  const { renderDeck } = await import("./render.mjs");
  const lines = [];
  for (const name of names) {
    const deck = `slides/${name}`;
    const { problems } = renderDeck(await readFile(path.join(root, deck), "utf8"), { root, deck });
    for (const { line, reference, message } of problems)
      lines.push(`${deck}:${line}: ${reference ? `${reference}: ` : ""}${message}`);
  }
  if (lines.length) throw new UserError([...lines, refusal].join("\n"));
}

/** @param {unknown} error */
export const oneLine = (error) =>
  (error instanceof Error ? error.message : String(error)).split("\n")[0];
