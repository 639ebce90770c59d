/** What a run prints, as a terminal shows it: in whatever pieces it comes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { visible, written } from "../static/live/terminal.js";

const red = (/** @type {string} */ text) => `\x1b[31m${text}\x1b[0m`;

/** @param {string} text without colours that begin or end where nothing follows */
const plainEnd = (text) => text.replace(/(\x1b\[\d*m)+$/, "");

/** @type {[string, string, string][]} */
const shown = [
  ["a carriage return begins the line again", "0 %\r50 %\r100 %", "100 %"],
  ["what is longer stays beyond it", "abcdef\rxy", "xycdef"],
  ["a line of Windows ends as others", "a\r\nb\r\n", "a\nb\n"],
  ["a carriage return at the end keeps its line", "50 %\r", "50 %"],
  ["a backspace goes back", "|\b/\b-\b", "-"],
  ["a backspace stops where the line begins", "a\n\b\bb", "a\nb"],
  ["the rest of a line is erased", "abc\r\x1b[Kd", "d"],
  ["a whole line is erased", "abc\x1b[2K\rd", "d"],
  ["a bar above is drawn again", "a 0\n\rb 0\x1b[A\ra 1\n\rb 1\x1b[A\ra 2\n\rb 2\n", "a 2\nb 2\n"],
  ["several lines above, as rich does it", "1\n2\n3\r\x1b[1A\x1b[2K\x1b[1A\x1b[2Kx", "x\n\n3"],
  ["nothing is above the first line", "\x1b[9Aa", "a"],
  ["columns and lines are chosen", "ab\x1b[5Gc\x1b[2Dd\x1b[Ge", "eb dc"],
  ["the screen below is erased", "a\nb\nc\x1b[2A\r\x1b[Jx", "x"],
  ["colours stay with their characters", `${red("red")}\rR`, `R${red("ed")}`],
  ["colours go on after what moves", "\x1b[31mred\n\rstill\x1b[0m", `${red("red")}\n${red("still")}`],
  ["letters that end colours are letters", "mmm\rn", "nmm"],
  ["characters of two units are one", "😀b\rc", "cb"],
  ["a cursor that hides is no text", "\x1b[?25la\rb\x1b[?25h", "b"],
];
for (const [what, text, expected] of shown) test(what, () => {
  assert.equal(visible(written("", text)), expected);
  const pieces = visible([...text].reduce(written, ""));
  assert.equal(plainEnd(pieces), plainEnd(expected), "in single characters");
});

test("leaves text alone that moves nothing", () => {
  for (const text of ["a\nb", `${red("a")}b`, "\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "tab\tend"])
    assert.equal(written("before\n", text), `before\n${text}`);
});

test("reaches as far up as a screen, so that a long run is not drawn anew at each step", () => {
  const lines = Array.from({ length: 200 }, (_, i) => `${i}`).join("\n");
  const [first, ...rest] = visible(written(lines, `\x1b[500Atop`)).split("\n");
  assert.equal(first, "0");
  assert.equal(rest.filter((line) => line.includes("top")).length, 1);
  assert.equal(rest.length, 199);
});
