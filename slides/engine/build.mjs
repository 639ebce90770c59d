/** npm run build: the lectures as a static site in _site/, for any folder of any host. */
import { cp, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { UserError, root, runCommand, say } from "./command.mjs";
import { deckNames, deckRenderer, describeDecks } from "./decks.mjs";
import { setUpNode } from "./setup.mjs";

const linkDeck = (/** @type {string} */ name) => name.replace(/\.md$/, ".html");

await runCommand(async () => {
  await setUpNode();
  const problems = await findProblems();
  if (problems.length) throw new UserError([...problems, "The site is not built: put that right first."].join("\n"));
  const site = await mkdtemp(path.join(root, "_site-"));
  try {
    await writeSite(site);
    await replace(path.join(root, "_site"), site);
  } finally {
    await rm(site, { recursive: true, force: true });
  }
  say("The site is in _site/.");
});

/** @returns {Promise<string[]>} what would be an error slide, or a dead link, with deck and line */
async function findProblems() {
  const { renderDeck } = await import("./render.mjs");
  const problems = [];
  for (const name of await deckNames(root)) {
    const deck = `slides/${name}`;
    problems.push(...renderDeck(await readFile(path.join(root, deck), "utf8"), { root, deck }).problems);
  }
  return problems.map(({ deck, line, reference, message }) =>
    `${deck}:${line}: ${reference ? `${reference}: ` : ""}${message}`);
}

/** @param {string} site an empty folder */
async function writeSite(site) {
  const { indexPage } = await import("./pages.mjs");
  const renderDeck = await deckRenderer(root);
  const decks = await describeDecks(root);
  await cp(path.join(root, "static"), path.join(site, "static"), {
    recursive: true,
    filter: (file) => !/^\.|\.tmp$/.test(path.basename(file)),
  });
  await writeFile(path.join(site, "index.html"), indexPage(decks, linkDeck));
  for (const { name } of decks)
    await writeFile(path.join(site, linkDeck(name)), await renderDeck(name, { linkDeck }));
  // GitHub Pages must not take the site for Jekyll's.
  await writeFile(path.join(site, ".nojekyll"), "");
}

/**
 * @param {string} folder
 * @param {string} successor
 */
async function replace(folder, successor) {
  const former = `${successor}-former`;
  await rename(folder, former).catch((error) => {
    if (error.code !== "ENOENT") throw error;
  });
  await rename(successor, folder).catch(async (error) => {
    await rename(former, folder);
    throw error;
  });
  await rm(former, { recursive: true, force: true });
}
