/** A plugin for Reveal: Ctrl+Shift+F finds words on all slides and marks them. */
export default { id: "search", init };

const notOnTheSlide = "aside.notes, .katex-mathml, style";

/** @param {any} deck */
function init(deck) {
  const form = document.createElement("form");
  const input = document.createElement("input");
  const output = document.createElement("output");
  form.className = "search";
  form.hidden = true;
  form.role = "search";
  input.type = "search";
  input.ariaLabel = input.placeholder = "Find on the slides";
  form.append(input, output);
  deck.getRevealElement().append(form);
  deck.registerKeyboardShortcut("CTRL + Shift + F", input.placeholder);

  let sought = "";
  let at = 0;
  /** @type {Element[]} */
  let found = [];

  document.addEventListener("keydown", (event) => {
    if (event.key.toUpperCase() !== "F" || !event.shiftKey || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.hidden ? open() : close();
  });
  form.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") close();
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (input.value !== sought) search();
    else at += event.shiftKey ? -1 : 1;
    show();
  });

  function open() {
    form.hidden = false;
    input.select();
  }

  function close() {
    form.hidden = true;
    input.blur();
    sought = "";
    CSS.highlights.delete("found");
  }

  function search() {
    sought = input.value;
    at = 0;
    /** @type {Element[]} */
    const slides = deck.getSlides();
    const places = slides.map((slide) => occurrences(slide, sought.toLowerCase()));
    found = slides.filter((_, i) => places[i].length);
    CSS.highlights.set("found", new Highlight(...places.flat()));
  }

  function show() {
    if (!found.length) return void (output.textContent = sought && "not found");
    at = (at + found.length) % found.length;
    output.textContent = `${at + 1} of ${found.length}`;
    const { h, v } = deck.getIndices(found[at]);
    deck.slide(h, v, Infinity);
  }
}

/**
 * @param {Element} slide
 * @param {string} words in lower case
 * @returns {Range[]} what reads as the words, whatever elements it stretches over
 */
function occurrences(slide, words) {
  /** @type {{ node: Text, start: number }[]} */
  const pieces = [];
  const walker = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
  let text = "";
  while (walker.nextNode()) {
    const node = /** @type {Text} */ (walker.currentNode);
    if (node.parentElement?.closest(notOnTheSlide)) continue;
    pieces.push({ node, start: text.length });
    text += node.data.toLowerCase();
  }
  /** @type {Range[]} */
  const ranges = [];
  for (let i = words ? text.indexOf(words) : -1; i >= 0; i = text.indexOf(words, i + words.length)) {
    const range = new Range();
    for (const { node, start } of pieces) {
      if (start <= i) range.setStart(node, Math.min(i - start, node.length));
      if (start < i + words.length) range.setEnd(node, Math.min(i + words.length - start, node.length));
    }
    ranges.push(range);
  }
  return ranges;
}
