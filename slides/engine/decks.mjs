/**
 * The decks of slides/: which there are, what they say of themselves, and their HTML.
 * Packages are imported where they are needed: npm start asks for names before it has any.
 */
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { UserError, here, shown } from "./command.mjs";
import { frontMatterForm, isDeck } from "./front-matter.mjs";

/**
 * @typedef {{name: string, title: string, family: string, slides: number, plans: number[]}} Deck
 * @typedef {{assets?: string, watch?: boolean, sources?: boolean, linkDeck?: (name: string) => string}} RenderOptions
 * @typedef {(name: string, options?: RenderOptions) => Promise<string>} RenderDeck
 */

/** Folders of slides/ without decks: our own code, and names that a site needs for something else. */
const otherFolders = new Set(["engine", "kernel", "notebooks", "source", "static"]);

/**
 * @param {string} root the repository
 * @returns {Promise<string[]>} the decks' paths below slides/, such as "cnn.md" and "week1/intro.md"
 */
export async function deckNames(root) {
  const slides = path.join(root, "slides");
  return (await markdownFiles(slides)).filter((name) => isDeck(path.join(slides, name)));
}

/**
 * @param {string} root
 * @returns {Promise<Map<string, string>>} for each Markdown file of slides/ that lacks what makes it a deck, a line
 */
export async function forgottenDecks(root) {
  const slides = path.join(root, "slides");
  const others = (await markdownFiles(slides)).filter((name) =>
    !isDeck(path.join(slides, name)) && !/^readme\.md$/i.test(path.basename(name)));
  return new Map(others.map((name) => [name,
    `${shown(path.join(slides, name))} is no deck: it has no front matter (${frontMatterForm}).`]));
}

/**
 * @param {string} slides the folder
 * @param {string} [below]
 * @returns {Promise<string[]>}
 */
async function markdownFiles(slides, below = "") {
  const entries = await readdir(path.join(slides, below), { withFileTypes: true });
  const names = await Promise.all(entries.filter(({ name }) => !name.startsWith(".")).map(async (entry) => {
    const name = `${below}${entry.name}`;
    if (entry.isDirectory()) return otherFolders.has(name) ? [] : markdownFiles(slides, `${name}/`);
    return entry.isFile() && name.endsWith(".md") && name !== "index.md" ? [name] : []; // a site has its own index
  }));
  return names.flat().sort();
}

/** @param {string} name of a deck, as the path of an address */
export const inAddress = (name) => name.split("/").map(encodeURIComponent).join("/");

/**
 * @param {string} root
 * @returns {Promise<Deck[]>}
 */
export async function describeDecks(root) {
  const { readDeck } = await import("./deck.mjs");
  const { plansOf } = await import("./plan.mjs");
  const names = await deckNames(root);
  return Promise.all(names.map(async (name) => {
    const { meta, stacks } = readDeck(await readFile(path.join(root, "slides", name), "utf8"));
    const slides = stacks.flat();
    return { name, title: meta.title || name, family: meta.family, slides: slides.length, plans: plansOf(slides) };
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
    const assets = "../".repeat(name.split("/").length - 1);
    return render("", { deck, assets, title: meta.title || name, ...options });
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
  const named = [here, root].map((start) => path.resolve(start, file));
  const name = decks.find((deck) => named.some((other) => other.normalize() === path.join(folder, deck).normalize()));
  if (name) return name;
  const forgotten = [...(await forgottenDecks(root))].find(([other]) => named.includes(path.join(folder, other)));
  throw new UserError(forgotten?.[1] ??
    `There is no deck ${file}. The decks: ${decks.map((deck) => shown(path.join(folder, deck))).join(", ")}.`, exitCode);
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
