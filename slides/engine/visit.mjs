/** Opens decks in a browser of this machine, laid out as on paper, where each slide has its page: to print and to measure. */
import { UserError, root } from "./command.mjs";
import { deckRenderer, inAddress, oneLine } from "./decks.mjs";

export const patience = 120_000; // milliseconds, for a slow machine

/**
 * @template T
 * @param {string} program the browser
 * @param {string[]} names of decks
 * @param {(page: import("puppeteer").Page, faults: string[]) => Promise<T>} visit gets a deck's page, and a line for each
 *   thing on it that is not as it should be
 * @param {string} [query] what the address says besides
 * @returns {Promise<T[]>} what the visits gave
 */
export async function visitDecks(program, names, visit, query = "") {
  const { serve } = await import("./serve.mjs");
  const { default: puppeteer } = await import("puppeteer");
  const renderDeck = await deckRenderer(root);
  // Without the server's own options: on paper nothing is watched, and no link opens a page of ours.
  const server = await serve({ root, port: 0, renderDeck: (name) => renderDeck(name) });
  // Chrome's sandbox refuses to work for root, who is the only user of many a container.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  try {
    const browser = await puppeteer.launch({ executablePath: program, args }).catch((error) => {
      throw new UserError(`${program} cannot be started: ${oneLine(error)}`);
    });
    try {
      const results = [];
      for (const name of names) {
        const page = await browser.newPage();
        await page.goto(`${server.url}/${inAddress(name)}?print-pdf${query}`, { timeout: patience });
        results.push(await visit(page, await page.evaluate(prepare, patience)));
        await page.close();
      }
      return results;
    } finally {
      await browser.close();
    }
  } catch (error) {
    throw error instanceof UserError ? error : new UserError(`The slides cannot be laid out: ${oneLine(error)}`);
  } finally {
    await server.close();
  }
}

/**
 * In the browser: waits for all that is drawn or loaded late, and leaves no link that leads to our server.
 * @param {number} patience
 * @returns {Promise<string[]>} what could not be shown, or does not fit
 */
async function prepare(patience) {
  const end = Date.now() + patience;
  const all = (/** @type {string} */ selector) => /** @type {HTMLElement[]} */ ([...document.querySelectorAll(selector)]);
  const sourceOf = (/** @type {Element} */ element) => element.closest("[data-at]")?.getAttribute("data-at");
  while (!all(".pdf-page").length || !all(".mermaid").every((diagram) => diagram.querySelector("svg, .failure"))) {
    if (Date.now() > end) return [`The slides were not laid out within ${patience / 1000} s.`];
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  document.body.getBoundingClientRect(); // asks for the fonts of all pages
  await document.fonts.ready;
  const faults = all(".failure").map((failure) =>
    `${sourceOf(failure)}: A diagram cannot be drawn: ${failure.textContent?.split("\n")[0]}`);
  for (const image of document.images) {
    if (!image.checkVisibility()) continue;
    image.loading = "eager";
    await image.decode().catch(() =>
      faults.push(`${sourceOf(image)}: A figure cannot be shown: ${image.getAttribute("src")}`));
  }
  const { misfit } = await import(new URL(`${document.body.dataset.assets}static/fit.js`, location.href).href);
  for (const slide of all(".pdf-page section")) {
    const says = misfit(slide);
    if (says) faults.push(`${sourceOf(slide)}: The slide has no room: ${says}`);
  }
  for (const link of document.links) {
    if (link.host !== location.host) continue;
    if (link.pathname === location.pathname && link.hash) link.setAttribute("href", link.hash.replace(/^#\//, "#"));
    else link.removeAttribute("href");
  }
  return faults;
}
