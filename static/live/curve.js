/** The training loss of a run, drawn while it trains. */

const svgns = "http://www.w3.org/2000/svg";
const size = { width: 720, height: 240, left: 64, right: 18, top: 30, bottom: 34 };

/**
 * @param {object} curve
 * @param {number} curve.epochs of each training
 * @param {Record<string, [number, number | null][]>} curve.lines by the name of the training: [epoch, loss]; null is
 *   infinite or no number
 * @returns {HTMLElement}
 */
export function drawCurve({ epochs, lines }) {
  const [last] = Object.keys(lines).slice(-1);
  const finite = Object.values(lines).map((line) =>
    /** @type {[number, number][]} */ (line.filter(([, loss]) => loss !== null)));
  const losses = finite.flat().map(([, loss]) => loss).sort((a, b) => a - b);
  // a training that starts with an explosion is cut off, or all else would lie at zero
  const usual = losses[Math.floor(losses.length / 2)] ?? 1;
  const most = { x: epochs, y: Math.max(Math.min(losses.at(-1) ?? 1, 4 * usual), 1e-9) };
  const { width, height, left, right, top, bottom } = size;
  const x = (/** @type {number} */ epoch) => left + (epoch / most.x) * (width - left - right);
  const y = (/** @type {number} */ loss) =>
    height - bottom - Math.min(loss / most.y, 1) * (height - top - bottom);
  const drawing = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `training loss of ${last}` });
  for (const loss of ticks(most.y)) drawing.append(
    element("line", { class: "grid", x1: left, x2: width - right, y1: y(loss), y2: y(loss) }),
    element("text", { x: left - 10, y: y(loss) + 5, "text-anchor": "end" }, String(loss)),
  );
  for (const epoch of ticks(most.x))
    drawing.append(element("text", { x: x(epoch), y: height - 10, "text-anchor": "middle" }, String(epoch)));
  finite.forEach((line, i) => drawing.append(element("polyline", {
    class: i === finite.length - 1 ? "newest" : "older",
    points: line.map(([epoch, loss]) => `${x(epoch).toFixed(1)},${y(loss).toFixed(1)}`).join(" "),
  })));
  const [epoch, loss] = lines[last].at(-1) ?? [0, 0];
  drawing.append(element("text", { class: "title", x: 0, y: 16 },
    `training loss · ${last} · epoch ${epoch.toFixed(1)}: ${loss?.toPrecision(3) ?? "not a number"}`));
  const figure = document.createElement("figure");
  figure.className = "curve";
  figure.append(drawing);
  return figure;
}

/** @param {number} most @returns {number[]} round numbers from 0 up to it */
function ticks(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  const step = [0.2, 0.5, 1, 2].map((factor) => factor * power).find((step) => most / step <= 5) ?? power;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} [content]
 */
function element(name, attributes, content) {
  const made = document.createElementNS(svgns, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (content !== undefined) made.textContent = content;
  return made;
}
