/** Light or dark: what the address says, else what was last chosen, in this window or another one. */

const root = document.documentElement;

export function startTheme() {
  const query = new URLSearchParams(location.search);
  if (query.has("print-pdf")) return show("light");
  const wanted = query.get("theme");
  if (wanted) remember(wanted);
  show(wanted ?? remembered());
  addEventListener("storage", ({ key, newValue }) => key === "theme" && show(newValue));
}

export function toggleTheme() {
  const name = root.dataset.theme === "dark" ? "light" : "dark";
  remember(name);
  show(name);
  const address = new URL(location.href);
  if (!address.searchParams.has("theme")) return;
  address.searchParams.set("theme", name);
  history.replaceState(history.state, "", address);
}

/** @param {string | null} name */
function show(name) {
  root.dataset.theme = name === "dark" ? "dark" : "light";
}

function remembered() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // a browser may refuse storage to a page in another site's frame
  }
}

/** @param {string} name */
function remember(name) {
  try {
    localStorage.setItem("theme", name);
  } catch {}
}
