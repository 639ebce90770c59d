/** Draws the Mermaid diagrams of a deck in the palette of the theme, and again when the theme changes. */

let latest = 0;

/** @param {Element[]} places that hold the text of a diagram; they need not be in the document yet */
export async function drawDiagrams(places) {
  const diagrams = places.map((place) => ({ place, source: place.textContent ?? "" }));
  await Promise.all([load("lib/mermaid/mermaid.min.js"), document.fonts.load('20px "Inter"')]);
  await draw(diagrams);
  new MutationObserver(() => draw(diagrams)).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}

/** @param {{place: Element, source: string}[]} diagrams */
async function draw(diagrams) {
  const drawing = ++latest;
  window.mermaid.initialize({
    startOnLoad: false,
    securityLevel: "strict",
    suppressErrorRendering: true,
    htmlLabels: false,
    flowchart: { htmlLabels: false, nodeSpacing: 28, rankSpacing: 36, padding: 10, diagramPadding: 2 },
    theme: "base",
    themeVariables: palette(),
  });
  for (const [index, { place, source }] of diagrams.entries()) {
    const result = await picture(`diagram-${index}-${drawing}`, source).catch(failure);
    if (drawing !== latest) return;
    place.replaceChildren(result);
  }
}

/**
 * A drawing that fills its place, its text at most as large as that of the slide.
 * @param {string} id
 * @param {string} source
 */
async function picture(id, source) {
  const { svg } = await window.mermaid.render(id, source);
  const drawing = document.createRange().createContextualFragment(svg).querySelector("svg");
  if (!drawing) throw new Error("Mermaid has drawn nothing");
  const { width, height } = drawing.viewBox.baseVal;
  drawing.style.maxWidth = `${1.3 * width}px`;
  drawing.style.maxHeight = `${1.3 * height}px`;
  drawing.setAttribute("preserveAspectRatio", "xMinYMin meet");
  return drawing;
}

/** @param {Error} error */
function failure({ message }) {
  const text = document.createElement("p");
  text.className = "failure";
  text.textContent = message;
  return text;
}

function palette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  return {
    darkMode: document.documentElement.dataset.theme === "dark",
    fontFamily: "Inter, sans-serif",
    fontSize: "20px",
    background: colour("paper"),
    primaryColor: colour("panel"),
    primaryBorderColor: colour("muted"),
    primaryTextColor: colour("ink"),
    secondaryColor: colour("idea-tint"),
    tertiaryColor: colour("panel"),
    lineColor: colour("muted"),
    textColor: colour("ink"),
    edgeLabelBackground: colour("paper"),
  };
}

/** @param {string} path a script in this folder that is no module */
function load(path) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(path, import.meta.url).href;
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error(`${path} could not be loaded`)));
    document.head.append(script);
  });
}
