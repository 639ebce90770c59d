/** A deck in the browser: slides, steps through code, light and dark. Loads the rest where a deck needs it. */
import "./guard.js";
import Reveal from "./lib/reveal/reveal.js";
import Notes from "./lib/reveal/plugin/notes.js";
import Zoom from "./lib/reveal/plugin/zoom.js";
import { misfit, settled } from "./fit.js";
import { growType } from "./grow.js";
import Search from "./search.js";
import { startTheme, toggleTheme } from "./theme.js";

const query = new URLSearchParams(location.search);
const printing = query.has("print-pdf");
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

window.Reveal = Reveal;
startTheme();
if (Number(query.get("minutes"))) leaveOut(Number(query.get("minutes")));
labelSlides();
if (printing) printRecorded();
await growType(/** @type {HTMLElement} */ (document.querySelector(".slides")));

Reveal.addEventListener("pdf-ready", labelNotes);
Reveal.addEventListener("ready", focusLines);
Reveal.addEventListener("slidechanged", focusLines);
Reveal.addEventListener("fragmentshown", focusLines);
Reveal.addEventListener("fragmenthidden", focusLines);

Reveal.initialize({
  width: 1280,
  height: 720,
  margin: 0,
  minScale: 0.1,
  maxScale: 6,
  center: false,
  display: "flex",
  hash: true,
  controlsLayout: "edges",
  controlsTutorial: false,
  hideCursorTime: 2000,
  scrollLayout: "compact",
  transition: "none",
  backgroundTransition: "none",
  autoAnimate: !still,
  autoAnimateDuration: 0.6,
  autoAnimateMatcher: morphingPairs,
  pdfSeparateFragments: false,
  pdfMaxPagesPerSlide: 1,
  defaultTiming: 0, // of slides without data-timing: with it the speaker view shows whether one is late
  plugins: [Notes, Zoom, Search],
});
Reveal.addKeyBinding({ keyCode: 84, key: "T", description: "Light or dark" }, toggleTheme);

// For print, Reveal takes the slides out of the document for a moment.
const diagrams = [...document.querySelectorAll(".mermaid")];
if (diagrams.length) import("./diagrams.js").then(({ drawDiagrams }) => drawDiagrams(diagrams));
if ("watch" in document.body.dataset) {
  import("./reload.js");
  if (!printing) for (const event of ["ready", "slidechanged"]) Reveal.addEventListener(event, refuseMisfit);
  const isLecturers = !printing && !query.has("receiver");
  if (isLecturers && document.querySelector(".runnable")) import("./lib/live.js");
}

/* Reveal's style for printing on paper drops the layout of slides; with this class it leaves them alone. */
const { classList } = document.documentElement;
addEventListener("beforeprint", () => classList.add("print-pdf"));
addEventListener("afterprint", () => classList.toggle("print-pdf", printing));

/** @param {number} minutes that the lecture takes: slides for longer ones are left out */
function leaveOut(minutes) {
  for (const slide of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".slides section[data-plan]"))) {
    if (Number(slide.dataset.plan) <= minutes) continue;
    const stack = slide.parentElement;
    slide.remove();
    if (stack?.matches("section") && !stack.querySelector("section")) stack.remove();
  }
}

/** Gives each slide its number in the footer, and a name for screen readers. */
function labelSlides() {
  const slides = [...document.querySelectorAll(".slides section:not(:has(> section))")];
  for (const [index, slide] of slides.entries()) {
    const number = document.createElement("span");
    number.className = "number";
    number.textContent = `${index + 1} / ${slides.length}`;
    slide.querySelector(".made-by")?.append(number);
    slide.setAttribute("role", "group");
    slide.setAttribute("aria-roledescription", "slide");
    slide.setAttribute("aria-label", `${index + 1} of ${slides.length}`);
  }
}

/** On paper nothing opens: what a snippet gave gets a page of its own, after its slide's. */
function printRecorded() {
  for (const recorded of document.querySelectorAll(".recorded")) {
    const slide = /** @type {HTMLElement} */ (recorded.closest("section"));
    const page = /** @type {HTMLElement} */ (slide.cloneNode(true));
    for (const name of ["id", "data-auto-animate", "data-auto-animate-id"]) page.removeAttribute(name);
    page.querySelector(".notes")?.remove();
    const output = document.createElement("div");
    output.className = "output printed";
    output.append(recorded.querySelector("summary")?.textContent ?? "", recorded.querySelector(".content") ?? "");
    page.querySelector(".body")?.replaceChildren(output);
    recorded.remove();
    slide.after(page);
  }
}

/** Says on each page of notes which slide it belongs to. */
function labelNotes() {
  for (const notes of document.querySelectorAll(".speaker-notes-pdf")) {
    const slide = notes.previousElementSibling?.querySelector("section");
    const title = slide?.querySelector("h1, h2")?.textContent;
    notes.setAttribute("data-slide", `${slide?.querySelector(".number")?.textContent} · ${title}`);
  }
}

/** Shows an error in place of a slide that has no room for its content, when it is shown first. */
async function refuseMisfit() {
  const slide = Reveal.getCurrentSlide();
  await settled(slide);
  if (slide !== Reveal.getCurrentSlide() || Reveal.isOverview() || slide.matches(".measured, .error")) return;
  if (slide.querySelector(".output:not([hidden])")) return; // a run's result takes room from the code that made it
  slide.classList.add("measured");
  const says = misfit(slide);
  if (!says) return;
  slide.classList.remove("content", "title");
  slide.classList.add("error");
  const lines = [["h2", "This slide has an error"], ["p", slide.dataset.at], ["pre", `The slide has no room: ${says}`]];
  const notes = slide.querySelector(".notes");
  slide.replaceChildren(...lines.map(([name, text]) => Object.assign(document.createElement(name), { textContent: text })));
  if (notes) slide.append(notes);
}

/** Puts the focus of each code block on the lines of its latest visible step. */
function focusLines() {
  for (const block of document.querySelectorAll(".code:has(.step)")) {
    const lines = [...block.querySelectorAll(".step.visible")].at(-1)?.getAttribute("data-lines");
    const numbers = lines && lineNumbers(lines);
    for (const line of block.querySelectorAll(".line")) {
      const chosen = numbers && numbers.has(Number(line.getAttribute("data-line")));
      line.classList.toggle("focus", chosen === true);
      line.classList.toggle("dim", chosen === false);
    }
  }
}

/** @param {string} ranges "31-33,35" -> 31, 32, 33, 35 */
function lineNumbers(ranges) {
  const numbers = new Set();
  for (const range of ranges.split(",")) {
    const [first, last = first] = range.split("-").map(Number);
    for (let number = first; number <= last; number++) numbers.add(number);
  }
  return numbers;
}

/**
 * What moves when code morphs from one slide to the next: its lines. What both slides have stands still, the rest fades in.
 * @param {HTMLElement} from
 * @param {HTMLElement} to
 */
function morphingPairs(from, to) {
  const pairs = [];
  const moves = { scale: false, styles: [], measure: placeOnSlide };
  const stands = { translate: false, scale: false, styles: [] };
  for (const line of to.querySelectorAll("[data-id]")) {
    const before = from.querySelector(`[data-id="${line.getAttribute("data-id")}"]`);
    if (before) pairs.push({ from: before, to: line, options: moves });
  }
  for (const part of [".kicker", "h2", ".made-by", "figcaption"]) {
    const [before, after] = [from.querySelector(part), to.querySelector(part)];
    if (before && after) pairs.push({ from: before, to: after, options: stands });
  }
  return pairs;
}

/** @param {HTMLElement} element */
function placeOnSlide(element) {
  const slide = element.closest("section")?.getBoundingClientRect() ?? new DOMRect();
  const { x, y, width, height } = element.getBoundingClientRect();
  return { x: x - slide.x, y: y - slide.y, width, height };
}
