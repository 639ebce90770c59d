/** Tells what changed in slides/, code/, papers/ and static/, in the words that static/deck.js understands. */
import path from "node:path";
import { watch } from "chokidar";

/**
 * @typedef {{type: "figure", path: string} | {type: "reload", decks: string[]} | {type: "style"}} Change
 * @typedef {"add" | "change" | "unlink"} Kind
 */

const folders = ["slides", "code", "papers", "static"];
const picture = /^static\/.*\.(svg|png|jpe?g|gif|webp)$/;
/** Editors and figures.save write several times within a moment; the outcome counts. */
const settleMilliseconds = 200;

/**
 * @param {string} root
 * @param {() => Promise<string[]>} deckNames
 * @param {(change: Change) => void} tell
 * @returns {Promise<() => Promise<void>>} ends the watch
 */
export async function watchChanges(root, deckNames, tell) {
  /** @type {Map<string, {first: Kind, last: Kind}>} */
  const seen = new Map();
  /** @type {NodeJS.Timeout | undefined} */
  let timer;

  async function flush() {
    const files = [...seen].map(([file, kinds]) => ({ file, kind: outcome(kinds) }));
    seen.clear();
    for (const change of changes(files, await deckNames().catch(() => []))) tell(change);
  }

  const watcher = watch(folders.map((folder) => path.join(root, folder)), {
    followSymlinks: false,
    ignoreInitial: true,
    ignored: (file) => isIgnored(slashes(path.relative(root, file))),
  });
  watcher.on("all", (kind, file) => {
    if (kind !== "add" && kind !== "change" && kind !== "unlink") return;
    const name = slashes(path.relative(root, file));
    seen.set(name, { first: seen.get(name)?.first ?? kind, last: kind });
    clearTimeout(timer);
    timer = setTimeout(flush, settleMilliseconds);
  });
  watcher.on("error", (error) => console.error(`Changes are not seen: ${error}`));
  await new Promise((resolve) => watcher.once("ready", () => resolve(null)));
  return () => {
    clearTimeout(timer);
    return watcher.close();
  };
}

/**
 * @param {{first: Kind, last: Kind}} kinds of a file's events within the moment
 * @returns {Kind | null} null for a file that came and went
 */
function outcome({ first, last }) {
  if (first === "add") return last === "unlink" ? null : "add";
  return last === "unlink" ? "unlink" : "change";
}

/**
 * Pictures and style are exchanged in an open page; whatever else changed reloads it.
 * @param {{file: string, kind: Kind | null}[]} files with forward slashes, from the root
 * @param {string[]} decks
 * @returns {Change[]}
 */
export function changes(files, decks) {
  /** @type {Change[]} */
  const exchanged = [];
  const reloaded = new Set();
  for (const { file, kind } of files) {
    const deck = /^slides\/(.+\.md)$/.exec(file)?.[1];
    if (kind === null) continue;
    else if (kind === "change" && picture.test(file)) exchanged.push({ type: "figure", path: file });
    else if (kind === "change" && file.endsWith(".css")) exchanged.push({ type: "style" });
    else for (const name of deck ? [deck] : decks) reloaded.add(name);
  }
  return reloaded.size ? [...exchanged, { type: "reload", decks: [...reloaded] }] : exchanged;
}

/** @param {string} file with forward slashes, from the root */
export const isIgnored = (file) =>
  /(^|\/)(\.[^/]+|__pycache__|node_modules|[^/]+(~|\.tmp))($|\/)/.test(file) || /^static\/lib(\/|$)/.test(file);

/** @param {string} file */
const slashes = (file) => file.split(path.sep).join("/");
