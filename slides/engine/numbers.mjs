/** Whether a text states a computed value. */

const scales = new Map([
  ["", 1], ["%", 0.01], ["points", 0.01], ["k", 1e3], ["M", 1e6], ["million", 1e6], ["G", 1e9], ["billion", 1e9],
]);
const words = "zero one two three four five six seven eight nine ten eleven twelve".split(" ");
const amount = "([-−]?(?:\\d{1,3}(?:,\\d{3})+|\\d+)(?:\\.\\d+)?)";
const scale = "((?:[%kMG]|points|million|billion)(?![\\p{L}\\p{N}]))?";
const statement = new RegExp(`^${amount}\\s*${scale}(?:[\\s×].*)?$`, "u");

/**
 * A number is rounded to the digits that are shown; %, points, k, M and G scale it, other units don't.
 * A count up to twelve may be a word.
 * @param {string} text
 * @param {unknown} value
 * @throws {Error} that says what to write
 */
export function checkStatement(text, value) {
  if (typeof value !== "number") {
    if (text !== String(value)) throw new Error(`the value is ${JSON.stringify(value)}`);
    return;
  }
  const counted = words.indexOf(text.toLowerCase());
  if (counted >= 0) {
    if (counted !== value) throw new Error(`the value is ${value}: write ${words[value] ?? value}`);
    return;
  }
  const [, digits, unit = ""] = statement.exec(text) ?? [];
  if (!digits) throw new Error(`the text must begin with a number; the value is ${value}`);
  const decimals = digits.split(".")[1]?.length ?? 0;
  const scaled = value / (scales.get(unit) ?? 1);
  const shown = Number(digits.replace("−", "-").replaceAll(",", ""));
  const rounding = 0.5 * 10 ** -decimals + 1e-9 * Math.abs(scaled);
  if (Math.abs(scaled - shown) <= rounding) return;
  const right = scaled.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  throw new Error(`the value is ${value}: write ${right}${unit && ` ${unit}`}`);
}
