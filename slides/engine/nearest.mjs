/**
 * @param {string} name
 * @param {string[]} known
 * @returns {string} the nearest of what is known, to go into a message
 */
export function nearest(name, known) {
  const ranked = known
    .map((other) => ({ other, distance: distance(name.toLowerCase(), other.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  return ranked.length ? `; there is ${ranked.slice(0, 4).map(({ other }) => other).join(", ")}` : "";
}

/**
 * @param {string} a
 * @param {string} b
 * @returns {number} how many characters to insert, delete or replace
 */
export function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length];
}
