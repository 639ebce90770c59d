/**
 * Keeps pages of other origins away from reveal, which obeys every message and every address.
 * A deck imports this before reveal, and goes no further if this throws.
 */

/** What the address of a deck may say: what we read, and what the speaker view tells its frames. */
const known = new Set([
  "theme", "print-pdf", "showNotes", "receiver", "progress", "history", "transition", "autoSlide",
  "backgroundTransition", "scrollActivationWidth", "controls", "postMessageEvents",
]);

if (isFramedByOthers()) {
  const link = document.createElement("a");
  Object.assign(link, { href: location.href, target: "_blank", rel: "noopener", textContent: document.title });
  document.body.replaceChildren(link);
  throw new Error("These slides do not run in a page of another site: open them in a window of their own");
}

addEventListener("message", (event) => {
  if (event.origin !== location.origin) event.stopImmediatePropagation();
}, true);

dropUnknownParameters();

function isFramedByOthers() {
  try {
    for (let frame = window; frame !== frame.parent; frame = /** @type {Window & typeof globalThis} */ (frame.parent))
      frame.parent.document.URL; // throws if it is another origin's
    return false;
  } catch {
    return true;
  }
}

/** Reveal takes each parameter for a setting, and one of them for an address that the speaker view opens. */
function dropUnknownParameters() {
  const kept = [...new URLSearchParams(location.search)]
    .filter(([name, value]) => known.has(name) && /^[\w-]*$/.test(value))
    .map(([name, value]) => (value ? `${name}=${value}` : name));
  const address = new URL(location.href);
  address.search = kept.join("&");
  if (address.search !== location.search) history.replaceState(history.state, "", address);
}
