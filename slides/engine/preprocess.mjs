/** What reveal-md calls for a deck, here and in our server: from its Markdown to the slides' HTML. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { deckNames } from "./decks.mjs";
import { policy } from "./policy.mjs";
import { errorSlide, renderDeck } from "./render.mjs";

const ownRoot = fileURLToPath(new URL("../..", import.meta.url));

/**
 * @param {string} markdown without front matter
 * @param {object} options
 * @param {string} [options.deck] the deck's file; plain reveal-md does not tell, so it is found by its contents
 * @param {string} [options.root]
 * @param {string} [options.assets]
 * @param {boolean} [options.watch] our server reloads what has changed
 * @param {string} [options.file] is set for the template: the deck's, relative to the root
 * @param {boolean} [options.live] is set for the template, because reveal-md writes over `watch`
 * @param {string} [options.policy] likewise, so that no deck's front matter says it
 * @param {(name: string) => string} [options.linkDeck]
 * @param {boolean} [options.sources] there are pages of the modules' source beside the deck
 */
export default async function preprocess(markdown, options) {
  const { root = ownRoot, assets, linkDeck, sources, watch } = options;
  options.live = Boolean(options.deck && watch);
  options.policy = policy;
  options.file = "slides/deck.md";
  try {
    const file = options.deck ?? (await findDeck(root, markdown));
    if (file) options.file = path.relative(root, file).replaceAll(path.sep, "/");
    const text = file ? readFileSync(file, "utf8") : markdown;
    return renderDeck(text, { root, deck: options.file, assets, linkDeck, sources }).html;
  } catch (error) {
    const message = `the deck cannot be shown: ${error instanceof Error ? error.message : error}`;
    return errorSlide([{ deck: options.file, line: 1, message }]);
  }
}

/**
 * @param {string} root
 * @param {string} markdown
 */
async function findDeck(root, markdown) {
  const files = (await deckNames(root)).map((name) => path.join(root, "slides", name));
  return markdown.trim() && files.find((file) => readFileSync(file, "utf8").endsWith(markdown));
}
