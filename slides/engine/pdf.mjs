/** npm run pdf: a deck as a handout, a page a slide, printed by a browser that is on this machine. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { findBrowser } from "./browser.mjs";
import { UserError, here, root, runCommand, shown, writeWhole } from "./command.mjs";
import { deckRenderer, existingDeck, inAddress, oneLine, refuseProblems } from "./decks.mjs";
import { setUpNode } from "./setup.mjs";

const usage = "Usage: npm run pdf -- slides/DECK.md [--notes] [--out FILE]";
const patience = 120_000; // milliseconds, for a slow machine

await runCommand(async () => {
  const { deck, notes, out } = await commandLine();
  const browser = findBrowser();
  await setUpNode();
  await refuseProblems(root, [deck], "No PDF is written: put that right first.");
  const query = `?print-pdf${notes ? "&showNotes=separate-page" : ""}`;
  const pdf = await withServer((url) => print(browser, `${url}/${inAddress(deck)}${query}`));
  try {
    await mkdir(path.dirname(out), { recursive: true });
    await writeWhole(out, pdf);
  } catch (error) {
    throw new UserError(`${shown(out)} cannot be written: ${oneLine(error)}`);
  }
  const pages = Buffer.from(pdf).toString("latin1").match(/\/Type\s*\/Page\b/g)?.length ?? 0;
  console.log(`${shown(out)}: ${pages} pages, ${(pdf.length / 2 ** 20).toFixed(1)} MiB`);
});

/** @returns {Promise<{deck: string, notes: boolean, out: string}>} */
async function commandLine() {
  const { values, positionals } = parsed();
  if (positionals.length !== 1) throw new UserError(`Name one deck. ${usage}`, 2);
  const deck = await existingDeck(root, positionals[0]);
  const out = path.resolve(here, values.out ?? path.join(root, `out/pdf/${deck.replace(/\.md$/, ".pdf")}`));
  return { deck, notes: values.notes, out };
}

function parsed() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { notes: { type: "boolean", default: false }, out: { type: "string" } },
    });
  } catch (error) {
    throw new UserError(`${oneLine(error).split(/\.\s/)[0]}. ${usage}`, 2);
  }
}

/**
 * @template T
 * @param {(url: string) => Promise<T>} work
 */
async function withServer(work) {
  const { serve } = await import("./serve.mjs");
  const renderDeck = await deckRenderer(root);
  // Without the server's own options: on paper nothing is watched, and no link opens a page of ours.
  const server = await serve({ root, port: 0, renderDeck: (name) => renderDeck(name) });
  try {
    return await work(server.url);
  } finally {
    await server.close();
  }
}

/**
 * @param {string} program
 * @param {string} url
 * @returns {Promise<Uint8Array>} the PDF
 */
async function print(program, url) {
  const { default: puppeteer } = await import("puppeteer");
  // Chrome's sandbox refuses to work for root, who is the only user of many a container.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const browser = await puppeteer.launch({ executablePath: program, args }).catch((error) => {
    throw new UserError(`${program} cannot be started: ${oneLine(error)}`);
  });
  try {
    const page = await browser.newPage();
    await page.goto(url, { timeout: patience });
    const faults = await page.evaluate(prepare, patience);
    if (faults.length) throw new UserError([...faults, "No PDF is written."].join("\n"));
    return await page.pdf({ preferCSSPageSize: true, printBackground: true, outline: true, timeout: patience });
  } catch (error) {
    throw error instanceof UserError ? error : new UserError(`The slides cannot be printed: ${oneLine(error)}`);
  } finally {
    await browser.close();
  }
}

/**
 * In the browser: waits for all that is drawn or loaded late, and leaves no link that leads to our server.
 * @param {number} patience
 * @returns {Promise<string[]>} what could not be shown
 */
async function prepare(patience) {
  const end = Date.now() + patience;
  const all = (/** @type {string} */ selector) => [...document.querySelectorAll(selector)];
  while (!all(".pdf-page").length || !all(".mermaid").every((diagram) => diagram.querySelector("svg, .failure"))) {
    if (Date.now() > end) return [`The slides were not laid out within ${patience / 1000} s.`];
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await document.fonts.ready;
  const faults = all(".failure").map(({ textContent }) => `A diagram cannot be drawn: ${textContent?.split("\n")[0]}`);
  for (const image of document.images) {
    if (!image.checkVisibility()) continue;
    image.loading = "eager";
    await image.decode().catch(() => faults.push(`A figure cannot be shown: ${image.getAttribute("src")}`));
  }
  for (const link of document.links) {
    if (link.host !== location.host) continue;
    if (link.pathname === location.pathname && link.hash) link.setAttribute("href", link.hash.replace(/^#\//, "#"));
    else link.removeAttribute("href");
  }
  return faults;
}
