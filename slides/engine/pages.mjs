/** The pages that are not decks: the frame of them all, the index of decks, and what stands in for a broken one. */
import { inAddress } from "./decks.mjs";
import { policy } from "./policy.mjs";

const course = "Deep Learning Architectures";

/**
 * @param {import("./decks.mjs").Deck[]} decks
 * @param {(name: string) => string} linkDeck
 */
export function indexPage(decks, linkDeck) {
  const entries = decks.map(({ name, title, family, slides, plans }) => {
    const address = escape(inAddress(linkDeck(name)));
    const links = plans.map((minutes) => `<a href="${address}?minutes=${minutes}"
            aria-label="${escape(title)}, lecture of ${minutes} minutes">${minutes}</a>`);
    return `
      <li>
        <a class="deck" href="${address}">
          <span class="family">${escape(family)}</span>
          <span class="title">${escape(title)}</span>
          <span class="count">${slides} ${slides === 1 ? "slide" : "slides"}</span>
        </a>${links.length ? `
        <span class="plans">${links.join(" ")} minutes</span>` : ""}
      </li>`;
  });
  return page(course, `
    <h1>${course}</h1>
    <p>The code on a slide is the tested source, the figure is a run of it, and the number
      is computed by it.</p>
    <ul class="decks">${entries.join("")}
    </ul>`);
}

/**
 * Shown until the deck can be rendered again; it asks for itself every second.
 * @param {string} name
 * @param {string} message
 */
export const brokenDeckPage = (name, message) => page(`${name} is broken`, `
    <h1>slides/${escape(name)} cannot be shown</h1>
    <pre class="broken">${escape(message)}</pre>
    <p>This page shows the deck as soon as that is put right.</p>`, { head: `<meta http-equiv="refresh" content="1">` });

/**
 * @param {number} status
 * @param {string} message
 */
export const messagePage = (status, message) => page(message, `
    <h1>${escape(message)}</h1>
    <p><a href="/">All decks</a> <span class="count">(status ${status})</span></p>`, { assets: "/" });

/** What npm start opens: static/live/enter.js lets this browser in and goes on to the deck. */
export const enterPage = () => page("Live code", `
    <h1 role="status">Opening the lecture …</h1>
    <p><a href="/">All decks</a></p>`,
  { assets: "/", head: `<script type="module" src="/static/live/enter.js"></script>` });

/**
 * @param {string} title
 * @param {string} body
 * @param {{head?: string, assets?: string, className?: string}} [more]
 */
export function page(title, body, { head = "", assets = "", className = "index" } = {}) {
  return `<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta http-equiv="Content-Security-Policy" content="${policy}">
    <meta name="viewport" content="width=device-width">
    <title>${escape(title)}</title>
    <link rel="icon" href="data:,">
    <script src="${assets}static/head.js"></script>
    <link rel="stylesheet" href="${assets}static/theme.css">
    <link rel="stylesheet" href="${assets}static/index.css">${head}
    <script type="module" src="${assets}static/index.js"></script>
  </head>
  <body class="${className}">
    <main>${body}
    </main>
  </body>
</html>
`;
}

/** @param {string} text */
const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
