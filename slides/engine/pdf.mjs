/** npm run pdf: a deck as a handout, a page a slide, printed by a browser that is on this machine. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { findBrowser } from "./browser.mjs";
import { UserError, here, root, runCommand, shown, writeWhole } from "./command.mjs";
import { existingDeck, oneLine, refuseProblems } from "./decks.mjs";
import { setUpNode } from "./setup.mjs";
import { patience, visitDecks } from "./visit.mjs";

const usage = "Usage: npm run pdf -- slides/DECK.md [--notes] [--out FILE]";

await runCommand(async () => {
  const { deck, notes, out } = await commandLine();
  const browser = findBrowser();
  await setUpNode();
  await refuseProblems(root, [deck], "No PDF is written: put that right first.");
  const [pdf] = await visitDecks(browser, [deck], (page, faults) => {
    if (faults.length) throw new UserError([...faults, "No PDF is written."].join("\n"));
    return page.pdf({ preferCSSPageSize: true, printBackground: true, outline: true, timeout: patience });
  }, notes ? "&showNotes=separate-page" : "");
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
