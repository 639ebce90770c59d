/** The page that npm start opens: gives the key of its link for the secret of live code, and goes on to the deck. */
import { keepSecret } from "./secret.js";

const asked = new URLSearchParams(location.hash.slice(1));
history.replaceState(null, "", location.pathname); // the key is in no history
// @ts-ignore: only Chromium has it
if (document.prerendering) await new Promise((resolve) => document.addEventListener("prerenderingchange", resolve, { once: true }));
try {
  const answer = await fetch("/kernel/enter", { method: "POST", body: asked.get("key") ?? "" });
  const { secret, message } = await answer.json();
  if (!secret) say(message);
  else {
    keepSecret(secret);
    const names = (asked.get("deck") ?? "").split("/").filter(Boolean);
    location.replace(`/${names.map(encodeURIComponent).join("/")}`);
  }
} catch (error) {
  say(`Live code could not be opened (${error}): run npm start again`);
}

/** @param {string} text */
function say(text) {
  /** @type {HTMLElement} */ (document.querySelector("h1")).textContent = text;
}
