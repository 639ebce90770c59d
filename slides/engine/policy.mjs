/** The policy of every page: what it may load, and that only scripts in files run. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Reveal writes its speaker view into a window of ours, which inherits the policy, together with a script. */
const speakerView = readFileSync(fileURLToPath(import.meta.resolve("reveal.js/plugin/notes/speaker-view.html")), "utf8");

/** For the head of a page, so that it holds in a static site and under plain reveal-md too. */
export const policy = [
  "default-src 'self'",
  `script-src 'self' ${[...speakerView.matchAll(/<script>([^]*?)<\/script>/g)].map(([, text]) => hash(text)).join(" ")}`,
  // KaTeX, Mermaid and the speaker view set style in elements and attributes; it can load nothing from elsewhere.
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data: blob:",
  "media-src 'self' data:",
  "font-src 'self' data:",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

// What follows can be said in a header only.
const ownFrames = "frame-ancestors 'self'";
export const servedPolicy = `${policy}; ${ownFrames}`;

/** A file that is opened by itself, such as an SVG, runs nothing. */
export const filePolicy =
  `sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; ${ownFrames}`;

/** @param {string} script */
function hash(script) {
  return `'sha256-${createHash("sha256").update(script).digest("base64")}'`;
}
