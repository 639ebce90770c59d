/** Whether a slide has room for its content: one measure for npm start, for npm run build and for npm run pdf. */

/** The pixels of a slide, whatever the size at which it is shown, and what stays free at its right. */
const slideWidth = 1280;
const slideHeight = 720;
const margin = 56;

/** Not measured: notes, what no reader sees, the inside of drawings, and code, whose lines the engine counts. */
const apart = "aside.notes, .katex-mathml, svg *, .code *, .output, .output *";

/**
 * @param {HTMLElement} slide as it is laid out, with all that it loads
 * @returns {string} what does not fit, and by how much; empty if all does
 */
export function misfit(slide) {
  const frame = (slide.closest(".pdf-page") ?? slide.closest(".slides") ?? slide).getBoundingClientRect();
  const scale = frame.width / slideWidth;
  const footer = slide.querySelector(".made-by")?.getBoundingClientRect();
  const floor = footer?.height ? footer.top : frame.top + scale * slideHeight;
  let worst = { pixels: 1, says: "" };

  /** @param {Element} element @param {number} pixels on the screen @param {string} where */
  const report = (element, pixels, where) => {
    if (pixels / scale <= worst.pixels) return;
    worst = { pixels: pixels / scale, says: `${nameOf(element)} ${where.replace("N", String(Math.round(pixels / scale)))}` };
  };
  for (const element of slide.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    // Of a formula its pieces count: what is around and in them has invisible struts and margins.
    const isPiece = !element.closest(".katex") || element.matches(".katex .base");
    if (box.width / scale <= 1 || box.height / scale <= 1 || !isPiece || element.matches(apart)) continue;
    if (!element.checkVisibility()) continue; // such as in <details> that are closed; steps to come are visible to it
    const column = element.parentElement?.closest(".media, .prose")?.getBoundingClientRect();
    const wall = Math.min(column?.right ?? Infinity, frame.left + scale * (slideWidth - margin));
    report(element, box.bottom - (element.closest(".body, h1, h2") ? floor : frame.top + scale * slideHeight), "ends N px too low");
    report(element, box.right - wall, "ends N px too far to the right");
    report(element, Math.max(frame.left - box.left, frame.top - box.top), "begins N px outside of the slide");
    if (element.matches(".katex *, svg, .code") || getComputedStyle(element).display === "inline") continue;
    report(element, scale * (element.scrollWidth - element.clientWidth), "is N px wider than its place");
    if (getComputedStyle(element).overflowY !== "visible")
      report(element, scale * (element.scrollHeight - element.clientHeight), "is N px higher than its place");
  }
  return worst.says;
}

/** @param {Element} element */
function nameOf(element) {
  const text = (element.textContent ?? "").trim().replace(/\s+/g, " ");
  const image = element.getAttribute("src")?.split("/").pop();
  return text ? `“${text.length > 60 ? `… ${text.slice(-60)}` : text}”` : image ?? `<${element.localName}>`;
}

/**
 * Waits for what a slide loads and moves.
 * @param {HTMLElement} slide
 */
export async function settled(slide) {
  await fontsLoaded(slide);
  await Promise.all([...slide.querySelectorAll("img")].map((image) => image.checkVisibility() && image.decode().catch(() => {})));
  await Promise.all([...slide.querySelectorAll(".mermaid")].map(drawn));
  await Promise.allSettled(slide.getAnimations({ subtree: true }).map(({ finished }) => finished));
}

/**
 * The fonts of what is shown first on this slide are asked for when it is laid out, not before.
 * @param {HTMLElement} slide
 */
async function fontsLoaded(slide) {
  slide.getBoundingClientRect();
  await document.fonts.ready;
}

/**
 * @param {Element} diagram
 * @returns {Promise<void>}
 */
function drawn(diagram) {
  return new Promise((resolve) => {
    const look = () => (diagram.querySelector("svg, .failure") ? resolve() : setTimeout(look, 50));
    look();
  });
}
