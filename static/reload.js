/**
 * Follows changes to the files while a deck is open. The windows of the speaker view hear of them from the deck's own
 * window, because a browser keeps few connections to one server.
 */

/** A browser comes back by itself where the server was gone, but not where it has too many pages. */
const refusedMilliseconds = 10_000;

const windows = new BroadcastChannel("changes");
if (new URLSearchParams(location.search).has("receiver")) windows.onmessage = ({ data }) => follow(data);
else listen();

/** @param {boolean} [lost] changes may have been missed */
function listen(lost = false) {
  const events = new EventSource(`${document.body.dataset.assets}events`);
  events.onmessage = ({ data }) => {
    const change = JSON.parse(data);
    windows.postMessage(change);
    follow(change);
  };
  events.onerror = () => {
    lost = true;
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, refusedMilliseconds, lost);
  };
  events.onopen = () => lost && location.reload();
}

/** @param {{ type: "figure" | "reload" | "style", path?: string, decks?: string[] }} change */
function follow({ type, path, decks = [] }) {
  const version = `?${Date.now()}`;
  if (type === "figure") {
    for (const image of document.images) {
      const { pathname } = new URL(image.src);
      if (pathname.endsWith(`/${path}`)) image.src = pathname + version;
    }
  } else if (type === "style") {
    for (const sheet of document.querySelectorAll("link[href*='theme.css']"))
      sheet.setAttribute("href", sheet.getAttribute("href")?.split("?")[0] + version);
  } else if (decks.some((name) => document.body.dataset.deck === `slides/${name}`)) location.reload();
}
