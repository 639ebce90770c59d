/** Keeps pages of other origins away from reveal, which obeys every message and every address; imported before it. */
import "./frame.js";

/** What the address of a deck may say: what we read, and what the speaker view tells its frames. */
const known = new Set([
  "theme", "minutes", "print-pdf", "showNotes", "receiver", "progress", "history", "transition", "autoSlide",
  "backgroundTransition", "scrollActivationWidth", "controls", "postMessageEvents",
]);

addEventListener("message", (event) => {
  if (event.origin !== location.origin) event.stopImmediatePropagation();
}, true);

dropUnknownParameters();

/** Reveal takes each parameter for a setting, and one of them for an address that the speaker view opens. */
function dropUnknownParameters() {
  const kept = [...new URLSearchParams(location.search)]
    .filter(([name, value]) => known.has(name) && /^[\w-]*$/.test(value))
    .map(([name, value]) => (value ? `${name}=${value}` : name));
  const address = new URL(location.href);
  address.search = kept.join("&");
  if (address.search !== location.search) history.replaceState(history.state, "", address);
}
