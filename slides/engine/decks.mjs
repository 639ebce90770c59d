/**
 * The decks of slides/: which there are, what they say of themselves, and their HTML.
 * Packages are imported where they are needed: npm start asks for names before it has any.
 */
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";

/**
 * @typedef {{name: string, title: string, family: string, slides: number}} Deck
 * @typedef {{assets?: string, watch?: boolean, linkDeck?: (name: string) => string}} RenderOptions
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
  return async (name, options) => {
    const deck = path.join(root, "slides", name);
    const text = await readFile(deck, "utf8");
    const settings = { deck, assets: "", ...options };
    // It gives up on broken front matter, for which the preprocessor has an error slide.
    return render(text, settings).catch(() => render("", { ...settings, title: name }));
  };
}

/** @param {unknown} error */
export const oneLine = (error) =>
  (error instanceof Error ? error.message : String(error)).split("\n")[0];
