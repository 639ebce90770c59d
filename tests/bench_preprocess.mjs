/** Milliseconds for slides/short.md and long.md of the working directory, as JSON. */
import { readFileSync } from "node:fs";
import preprocess from "../slides/engine/preprocess.mjs";

const root = process.cwd();

/** @param {string} name of a deck */
async function milliseconds(name) {
  const deck = `${root}/slides/${name}.md`;
  const start = performance.now();
  const html = await preprocess(readFileSync(deck, "utf8"), { root, deck });
  const spent = performance.now() - start;
  const [, error] = /class="error">.*?<pre>(.*?)<\/pre>/s.exec(html) ?? [];
  if (error) throw new Error(error.replaceAll("\n", ": "));
  return spent;
}

const first = await milliseconds("short");
for (let i = 0; i < 10; i++) await milliseconds("short");
const pairs = [];
for (let i = 0; i < 10; i++) pairs.push([await milliseconds("short"), await milliseconds("long")]);
console.log(JSON.stringify({ first, pairs }));
