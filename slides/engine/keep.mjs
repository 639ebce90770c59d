/** Keeps the pages that are made of the project's files until one of these changes. */
import { lstatSync, readdirSync } from "node:fs";
import path from "node:path";
import { isIgnored } from "./watch.mjs";

/** What decks, the pages of modules and the index are made of. */
const folders = ["slides", "code", "static", "tests", "out/notebooks"];

/**
 * @param {string} root
 * @returns {(name: string, make: () => string | Promise<string>) => Promise<Buffer>} gives the page of a name, made
 *   only where a file has changed, and never twice at a time; all who ask get the same piece of memory
 */
export function keepPages(root) {
  /** @type {Map<string, {stamp: string, page: Promise<Buffer>}>} */
  const kept = new Map();
  /** @type {Promise<string> | undefined} */
  let looking;
  // The files are looked at, because the watcher's news come later than a request right after a save.
  const look = () => (looking ??= new Promise((resolve, reject) => setImmediate(() => {
    looking = undefined; // whoever asks from now on may know of a later save
    try {
      resolve(stampsIn(root, folders).join("\n"));
    } catch (error) {
      reject(error);
    }
  })));
  return async (name, make) => {
    const stamp = await look();
    const former = kept.get(name);
    if (former?.stamp === stamp) return former.page;
    const page = Promise.resolve(former?.page).catch(() => {}).then(make).then((text) => Buffer.from(text));
    const made = { stamp, page };
    kept.set(name, made);
    page.catch(() => kept.get(name) === made && kept.delete(name)); // the next request tries again
    return page;
  };
}

/**
 * @param {string} root
 * @param {string[]} names of files and folders
 * @returns {string[]} one for each file, different once it has changed
 */
function stampsIn(root, names) {
  return names.filter((name) => !isIgnored(name)).flatMap((name) => {
    const file = path.join(root, name);
    const entry = lstatSync(file, { throwIfNoEntry: false });
    if (entry?.isDirectory()) return stampsIn(root, readdirSync(file).map((inner) => `${name}/${inner}`));
    return entry ? `${name} ${entry.mtimeMs} ${entry.size} ${entry.ino}` : [];
  });
}
