/**
 * In a frame of another site a page is only a link to itself, so that nobody is led to use it there. Imported first:
 * it throws there, and whatever imports it does not run.
 */
if (isFramedByOthers()) {
  const link = document.createElement("a");
  Object.assign(link, { href: location.href, target: "_blank", rel: "noopener", textContent: document.title });
  document.body.replaceChildren(link);
  throw new Error("This page does not run in a page of another site: open it in a window of its own");
}

function isFramedByOthers() {
  try {
    for (let frame = window; frame !== frame.parent; frame = /** @type {Window & typeof globalThis} */ (frame.parent))
      frame.parent.document.URL; // throws if it is another origin's
    return false;
  } catch {
    return true;
  }
}

export {};
