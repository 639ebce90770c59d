/** What a figure says of how it was made, in its metadata. */
import { readFileSync } from "node:fs";
import { remember } from "./remember.mjs";

/** @typedef {{module: string, run: string, hash: string, command: string}} Provenance */

/** @type {(file: string) => Provenance | null} */
export const readProvenance = remember((file) => {
  const content = readFileSync(file);
  const description = file.endsWith(".png")
    ? pngDescription(content)
    : unescapeXml(/<dc:description>([^]*?)<\/dc:description>/.exec(content.toString("utf8"))?.[1] ?? "");
  try {
    const provenance = JSON.parse(description);
    return ["module", "run", "hash", "command"].every((key) => typeof provenance[key] === "string") ? provenance : null;
  } catch {
    return null;
  }
});

/** @type {(file: string) => number} how many pixels wide an SVG was drawn */
export const drawnWidth = remember((file) => Number(/<svg\b[^>]*?\swidth="(\d+)/.exec(readFileSync(file, "utf8"))?.[1] ?? 0));

/** @param {Buffer} png */
function pngDescription(png) {
  const keyword = Buffer.from("Description\0");
  for (let at = 8; at + 8 <= png.length; ) {
    const length = png.readUInt32BE(at);
    const data = png.subarray(at + 8, at + 8 + length);
    if (png.toString("latin1", at + 4, at + 8) === "tEXt" && data.subarray(0, keyword.length).equals(keyword))
      return data.toString("latin1", keyword.length);
    at += length + 12;
  }
  return "";
}

/** @param {string} text */
function unescapeXml(text) {
  const characters = new Map([["lt", "<"], ["gt", ">"], ["quot", '"'], ["apos", "'"], ["#39", "'"], ["amp", "&"]]);
  return text.replace(/&(lt|gt|quot|apos|#39|amp);/g, (_, name) => characters.get(name) ?? "");
}
