/** Text as a terminal shows it: progress bars write over what they wrote before, several of them on several lines. */

const height = 50; // lines that a program can reach; those above have scrolled away
const parts = /\x1b\[([\d;?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[?[\d;?]*|[\r\n\b]|[^\x1b\r\n\b]+/g;
const moves = /[\r\b]|\x1b(?:\[[\d;?]*(?:[^m\d;?]|$)|$)/; // the cursor, or may do so once the rest is there

/**
 * What the terminal has after some more text. Where its cursor is not at the end, its text ends in the sequences that
 * bring it there, so that nothing else needs to be kept.
 * @param {string} shown
 * @param {string} added
 */
export function written(shown, added) {
  const top = startOfLine(shown, height);
  const text = shown.slice(top) + added;
  return moves.test(text) ? shown.slice(0, top) + screen(text) : shown + added;
}

/** Without the sequences that only the cursor is brought back with. @param {string} shown */
export const visible = (shown) => shown.replace(/(?:\x1b\[\d+A)?\r(?:\x1b\[\d+C)?(?:\x1b\[[\d;?]*)?$|\x1b\[[\d;?]*$/, "");

/** @param {string} text @param {number} lines @returns {number} where the last `lines` lines begin */
function startOfLine(text, lines) {
  let start = text.length;
  for (let line = 0; line < lines && start > 0; line++) start = text.lastIndexOf("\n", start - 1);
  return start <= 0 ? 0 : start + 1;
}

/** @param {string} text */
function screen(text) {
  /** Each character with the colours that it has. @type {string[][]} */
  const rows = [[]];
  let row = 0;
  let column = 0;
  let style = "";
  let unfinished = "";
  for (const [part, numbers, command] of text.matchAll(parts)) {
    const n = Math.max(1, Number(numbers) || 1);
    if (part === "\r") column = 0;
    else if (part === "\b") column = Math.max(0, column - 1);
    else if (part === "\n") {
      row++;
      column = 0;
      if (row === rows.length) rows.push([]);
    } else if (command === "m") style = /^0*$/.test(numbers) ? "" : style.length < 60 ? style + part : part;
    else if (command === "A") row = Math.max(0, row - n);
    else if (command === "B") row = Math.min(rows.length - 1, row + n);
    else if (command === "C") column += n;
    else if (command === "D") column = Math.max(0, column - n);
    else if (command === "E" || command === "F") {
      row = Math.min(rows.length - 1, Math.max(0, row + (command === "E" ? n : -n)));
      column = 0;
    } else if (command === "G") column = n - 1;
    else if (command === "K") erase(rows[row], column, numbers);
    else if (command === "J") {
      if (numbers === "2" || numbers === "3") for (const cells of rows) cells.length = 0;
      else {
        erase(rows[row], column, "0");
        rows.length = row + 1;
      }
    } else if (/^\x1b\[?[\d;?]*$/.test(part)) unfinished = part;
    else if (!part.startsWith("\x1b")) for (const character of part) {
      const cells = rows[row];
      while (cells.length < column) cells.push(" ");
      cells[column++] = style + character;
    }
  }
  const up = rows.length - 1 - row;
  const atEnd = !up && column === rows[row].length;
  const back = atEnd ? "" : `${up ? `\x1b[${up}A` : ""}\r${column ? `\x1b[${column}C` : ""}`;
  return rows.map(joined).join("\n") + style + back + unfinished;
}

/** @param {string[]} cells @param {number} column @param {string} how to the end, from the start, or all */
function erase(cells, column, how) {
  if (how === "1") cells.fill(" ", 0, column + 1);
  else if (how === "2") cells.length = 0;
  else cells.length = Math.min(cells.length, column);
}

/** A row as text, with colours where they change. @param {string[]} cells */
function joined(cells) {
  let row = "";
  let style = "";
  for (const cell of cells) {
    const own = cell.startsWith("\x1b") ? cell.slice(0, cell.lastIndexOf("m", cell.length - 2) + 1) : "";
    const character = cell.slice(own.length);
    if (own !== style) row += (style ? "\x1b[0m" : "") + own;
    style = own;
    row += character;
  }
  return style ? `${row}\x1b[0m` : row;
}
