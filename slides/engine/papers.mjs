/** What papers report: papers/NAME.json, each number with the protocol by which it was measured. */
import { readFileSync } from "node:fs";
import { nearest } from "./nearest.mjs";
import { remember } from "./remember.mjs";

/**
 * @typedef {object} Result fields that do not apply are left out
 * @property {number | string} value shares for percentages
 * @property {string} what such as "GoogLeNet, top-5 error"
 * @property {string} where table, figure or section
 * @property {string} verified how the value was compared with the paper
 * @property {string} [data]
 * @property {string} [split]
 * @property {number} [models] more than one: an ensemble
 * @property {number | string} [crops] of each image
 * @typedef {{citation: string, url: string, results: Record<string, Result>}} Paper
 */

/** @type {(file: string) => Paper | null} */
const readPaper = remember((file) => {
  try {
    const { citation, url, results } = JSON.parse(readFileSync(file, "utf8"));
    const entries = Object.values(results);
    const isWhole = [citation, ...entries.flatMap(({ what, where, verified }) => [what, where, verified])]
      .every((text) => text && typeof text === "string");
    return isWhole && /^https:\/\//.test(url) ? { citation, url, results } : null;
  } catch {
    return null;
  }
});

/**
 * @param {string} file
 * @param {string} shown the file's name in messages
 * @param {string} key
 * @returns {{value: number | string, url: string, protocol: string}}
 */
export function findResult(file, shown, key) {
  const paper = readPaper(file);
  if (!paper) throw new Error(`${shown} is damaged: it needs citation, url, and results with what, where and verified`);
  const { citation, url, results } = paper;
  if (!Object.hasOwn(results, key))
    throw new Error(`${shown} has no result "${key}"${nearest(key, Object.keys(results))}`);
  return { value: results[key].value, url, protocol: protocolOf(citation, results[key]) };
}

/**
 * @param {string} citation
 * @param {Result} result
 */
function protocolOf(citation, { what, where, verified, data, split, models, crops }) {
  const conditions = [
    what, data, split,
    models && (models === 1 ? "one model" : `${models} models`),
    typeof crops === "number" ? (crops === 1 ? "one crop" : `${crops} crops`) : crops,
  ];
  return `${citation}, ${where}: ${conditions.filter(Boolean).join(", ")} (${verified})`;
}
