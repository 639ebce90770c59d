/** What a runnable snippet gave when it was recorded: shown wherever there is no kernel. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { attributesHtml, escape } from "./html.mjs";
import { remember } from "./remember.mjs";

/**
 * @typedef {{date: string, hardware: string, hash: string, versions: Record<string, string>}} Made
 * @typedef {{seconds: number, outputs: {text?: string, figure?: string}[]}} Snippet
 * @typedef {{made: Made, snippets: Record<string, Snippet>}} Recording
 */

const readRecording = remember((file) => {
  try {
    return /** @type {Recording} */ (JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return null;
  }
});

/**
 * @param {string} root the repository
 * @param {import("./resolve.mjs").Reference} snippet
 * @param {string} hash of its module as it is now
 * @param {(figure: string) => string} image from the name of a figure to HTML
 * @returns {string} nothing where nothing was recorded, or the snippet shows nothing
 */
export function recordedOutput(root, { module, symbol = "" }, hash, image) {
  const file = path.join(root, `static/recorded/${module}.json`);
  const recording = existsSync(file) ? readRecording(file) : null;
  const snippet = recording?.snippets?.[symbol];
  if (!recording || !snippet?.outputs.length) return "";
  const { date, hardware, versions, hash: recorded } = recording.made;
  const about = [
    `Recorded output${recorded === hash ? "" : " of older code"}`, date, `torch ${versions.torch}`,
    `${snippet.seconds} s on ${hardware.replace(/ \(.*\)$/, "")}`,
  ].join(" · ");
  const outputs = snippet.outputs.map(({ text = "", figure }) =>
    figure ? `<figure>${image(figure)}</figure>` : `<pre class="text">${escape(text)}</pre>`);
  const content = attributesHtml({ class: "content", tabindex: 0, role: "group", "aria-label": `recorded output of ${symbol}` });
  return `<details class="output recorded"><summary>${escape(about)}</summary><div${content}>${outputs.join("")}</div></details>`;
}
