/** Shows slide number `index` with all its fragments, and says what is wrong with how it looks. */
async (index) => {
  const slide = Reveal.getSlides()[index];
  const { h, v } = Reveal.getIndices(slide);
  Reveal.slide(h, v, Infinity);
  slide.getBoundingClientRect(); // asks for the fonts that are shown here first
  await document.fonts.ready;
  const images = [...slide.querySelectorAll("img")];
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true });
  await Promise.all(images.filter(isShown).map((image) => image.decode().catch(() => {})));

  const faults = [];
  const name = (element) =>
    `<${element.localName}${element.className && ` class="${element.className}"`}> ${element.textContent.trim().slice(0, 40)}`;
  const frame = slide.closest(".reveal").getBoundingClientRect();
  const footer = slide.querySelector(".made-by")?.getBoundingClientRect();
  const right = frame.right - 56;

  // Of a formula only its pieces count, of a diagram its whole: what is inside them has invisible struts and margins.
  const measured = [...slide.querySelectorAll("*")].filter((element) =>
    isShown(element) && !element.closest("aside.notes, .katex-mathml, svg *") &&
    (!element.closest(".katex") || element.matches(".katex .base")));
  for (const element of measured) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    if (box.left < frame.left - 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1 || box.right > right + 1)
      faults.push(`reaches out of the frame: ${name(element)}`);
    else if (footer && element.closest(".body, h1, h2") && box.bottom > footer.top + 1)
      faults.push(`lies over the footer: ${name(element)}`);
  }
  for (const element of slide.querySelectorAll("pre, code, table, td, th, .kicker, .made-by, .kicker span, .made-by span"))
    if (isShown(element) && element.localName !== "svg" && getComputedStyle(element).display !== "inline" &&
        (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1))
      faults.push(`is cut off: ${name(element)}`);
  for (const image of images) {
    if (!image.alt.trim()) faults.push(`has no alternative text: ${image.getAttribute("src")}`);
    if (isShown(image) && !image.naturalWidth) faults.push(`did not load: ${image.getAttribute("src")}`);
  }
  for (const code of slide.querySelectorAll("pre > code")) {
    const { fontSize, lineHeight } = getComputedStyle(code);
    const size = parseFloat(fontSize);
    if (size < 18 || size > 28) faults.push(`code of ${fontSize}: ${name(code)}`);
    if (parseFloat(lineHeight) < 1.15 * size) faults.push(`code lines too tight: ${name(code)}`);
  }
  for (const text of slide.querySelectorAll(".mermaid svg text")) {
    const size = parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
    if (size < 14) faults.push(`text of ${size.toFixed(1)} px in a diagram: ${name(text)}`);
  }
  for (const place of slide.querySelectorAll(".mermaid"))
    if (!place.querySelector("svg")) faults.push(`diagram not drawn: ${name(place)}`);
  const title = slide.querySelector("h1, h2");
  if (!title) faults.push("has no title");
  else if (title.getClientRects()[0].height > 3 * parseFloat(getComputedStyle(title).fontSize)) faults.push("title of three lines");
  if (slide.matches(".error")) faults.push(slide.textContent.trim().replace(/\s+/g, " "));
  return faults.map((fault) => `slide ${index + 1}, ${title?.textContent}: ${fault}`);
}
