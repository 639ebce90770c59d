/**
 * Follows changes to the files while a deck is open. The windows of the speaker view hear of them from the deck's own
 * window, because a browser keeps few connections to one server.
 */

const windows = new BroadcastChannel("changes");
if (new URLSearchParams(location.search).has("receiver")) windows.onmessage = ({ data }) => follow(data);
else listen();

function listen() {
  const events = new EventSource("events");
  let lost = false;
  events.onmessage = ({ data }) => {
    const change = JSON.parse(data);
    windows.postMessage(change);
    follow(change);
  };
  events.onerror = () => (lost = true);
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
  } else if (decks.includes(decodeURIComponent(location.pathname.split("/").pop() ?? ""))) location.reload();
}
