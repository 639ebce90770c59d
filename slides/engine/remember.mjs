import { statSync } from "node:fs";

/**
 * Remembers what `read` made of a file until the file changes.
 * @template T
 * @param {(file: string) => T} read
 * @returns {(file: string) => T}
 */
export function remember(read) {
  /** @type {Map<string, {stamp: string, value: T}>} */
  const known = new Map();
  return (file) => {
    const { mtimeMs, size, ino } = statSync(file);
    const stamp = `${mtimeMs} ${size} ${ino}`;
    const found = known.get(file);
    if (found?.stamp === stamp) return found.value;
    const value = read(file);
    known.set(file, { stamp, value });
    return value;
  };
}

/**
 * @template T
 * @param {() => T} make
 * @returns {() => T} makes it when it is first asked for
 */
export function once(make) {
  /** @type {{value: T} | undefined} */
  let made;
  return () => (made ??= { value: make() }).value;
}
