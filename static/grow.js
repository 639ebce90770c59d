/** Type of prose and tables grows into the room that a slide has: measured once, before the first slide is shown. */

/** Times the size that theme.css begins with, where it says too at how many pixels that ends. */
const factors = [1.55, 1.45, 1.36, 1.28, 1.2, 1.12, 1.06];
const mostFilled = 0.94; // of the height, so that the last line keeps its distance from the footer

/** @param {HTMLElement} slides all of them, before Reveal arranges them */
export async function growType(slides) {
  slides.classList.add("measuring");
  slides.getBoundingClientRect(); // asks for the fonts
  await document.fonts.ready;
  /** @type {NodeListOf<HTMLElement>} */
  const columns = slides.querySelectorAll(":not(.title, .section) > .flow, .prose");
  const heads = new Map([...slides.querySelectorAll("thead")].map((head) => [head, head.offsetHeight]));
  let growing = [...columns];
  for (const factor of factors) {
    for (const column of growing) column.style.setProperty("--grow", String(factor));
    growing = growing.filter((column) => !hasRoom(column) || isHeadWrapped(column, factor));
  }
  for (const column of growing) column.style.removeProperty("--grow");
  slides.classList.remove("measuring");

  /** @param {HTMLElement} column @param {number} factor */
  function isHeadWrapped(column, factor) {
    return [...column.querySelectorAll("thead")].some((head) =>
      head.offsetHeight > 1.1 * factor * (heads.get(head) ?? 0));
  }
}

/** @param {HTMLElement} column */
function hasRoom(column) {
  const bottom = column.lastElementChild?.getBoundingClientRect().bottom ?? 0;
  const height = bottom - column.getBoundingClientRect().top;
  return height <= mostFilled * column.clientHeight && column.scrollWidth <= column.clientWidth;
}
