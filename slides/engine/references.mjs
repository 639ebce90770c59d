/**
 * Checks what the decks refer to: node slides/engine/references.mjs [--json] [DECK …]
 * Prints what does not hold; with --json all references, as pytest takes them.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { deckNames } from "./decks.mjs";
import { renderDeck } from "./render.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

const args = process.argv.slice(2);
const files = args.filter((arg) => arg !== "--json");
const missing = files.find((file) => !existsSync(file));
if (missing) {
  console.error(`There is no deck ${missing}.`);
  process.exit(2);
}
const all = async () => (await deckNames(root)).map((name) => path.join(root, "slides", name));
const renderings = (files.length ? files : await all()).map((file) => renderDeck(readFileSync(file, "utf8"), {
  root, deck: path.relative(root, path.resolve(file)).replaceAll(path.sep, "/"),
}));
const problems = renderings.flatMap((rendering) => rendering.problems);

if (args.includes("--json")) {
  const others = problems.filter(({ reference }) => !reference)
    .map(({ deck, line, message }) => ({ deck, line, kind: "slide", ok: false, error: message }));
  console.log(JSON.stringify([...renderings.flatMap(({ references }) => references), ...others], null, 1));
} else {
  for (const { deck, line, reference, message } of problems)
    console.log(`${deck}:${line}: ${reference ? `${reference}: ` : ""}${message}`);
  process.exitCode = problems.length ? 1 : 0;
}
