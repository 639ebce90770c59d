/** npm run build: the lectures as a static site in _site/, for any folder of any host. */
import { cp, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { findBrowser } from "./browser.mjs";
import { UserError, root, runCommand, say, shown } from "./command.mjs";
import { deckNames, deckRenderer, describeDecks, forgottenDecks, refuseProblems } from "./decks.mjs";
import { setUpNode } from "./setup.mjs";
import { visitDecks } from "./visit.mjs";

const linkDeck = (/** @type {string} */ name) => name.replace(/\.md$/, ".html");

await runCommand(async () => {
  await setUpNode();
  for (const line of (await forgottenDecks(root)).values()) say(line);
  const refusal = "The site is not built: put that right first.";
  const names = await deckNames(root);
  await refuseProblems(root, names, refusal);
  await refuseMisfits(names, refusal);
  const site = await mkdtemp(path.join(root, "_site-"));
  try {
    await writeSite(site);
    await replace(path.join(root, "_site"), site);
  } finally {
    await rm(site, { recursive: true, force: true });
  }
  say(`The site is in ${shown(path.join(root, "_site"))}/.`);
});

/**
 * @param {string[]} names of decks
 * @param {string} refusal
 */
async function refuseMisfits(names, refusal) {
  const browser = anyBrowser();
  if (!browser) return say("No browser was found, so whether each slide has room for its content was not checked.");
  const faults = (await visitDecks(browser, names, async (_page, found) => found)).flat();
  if (faults.length) throw new UserError([...faults, refusal].join("\n"));
}

function anyBrowser() {
  try {
    return findBrowser();
  } catch {
    return null;
  }
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
  for (const { name } of decks) {
    const file = path.join(site, linkDeck(name));
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, await renderDeck(name, { linkDeck, sources: true }));
  }
  await writeSources(site);
  // GitHub Pages must not take the site for Jekyll's.
  await writeFile(path.join(site, ".nojekyll"), "");
}

/** @param {string} site gets a page for each module, the module itself, and its notebook if that is fresh */
async function writeSources(site) {
  const { freshNotebook, moduleFiles, sourcePage } = await import("./source.mjs");
  await mkdir(path.join(site, "source"));
  for (const { name, file } of moduleFiles(root)) {
    await writeFile(path.join(site, `source/${name}.html`), sourcePage(root, name, "../index.html"));
    await cp(path.join(root, file), path.join(site, `source/${name}.py`));
    const notebook = freshNotebook(root, name);
    if (notebook) await cp(path.join(root, notebook), path.join(site, `notebooks/${name}.ipynb`));
  }
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
