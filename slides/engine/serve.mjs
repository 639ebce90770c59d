/** The server of the lectures: the index, the decks, static/ and the news of what changed. */
import { lookup } from "node:dns/promises";
import { realpath, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { hostname, networkInterfaces } from "node:os";
import path from "node:path";
import express from "express";
import { UserError } from "./command.mjs";
import { deckNames, describeDecks, forgottenDecks, oneLine } from "./decks.mjs";
import { keepPages } from "./keep.mjs";
import { KernelProxy } from "./kernel-proxy.mjs";
import { brokenDeckPage, enterPage, indexPage, messagePage } from "./pages.mjs";
import { filePolicy, servedPolicy } from "./policy.mjs";
import { freshNotebook, moduleFiles, sourcePage } from "./source.mjs";
import { watchChanges } from "./watch.mjs";

const loopback = ["127.0.0.1", "::1"];
/** On all interfaces: the own name, at which nobody else can listen. @type {Record<string, string>} */
const loopbackOf = { "0.0.0.0": "127.0.0.1", "::": "::1" };
const everywhere = Object.keys(loopbackOf);

const headers = {
  "Cache-Control": "no-cache",
  "Content-Security-Policy": servedPolicy,
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
};

/**
 * @param {object} options
 * @param {string} options.root the repository
 * @param {import("./decks.mjs").RenderDeck} options.renderDeck
 * @param {string} [options.host] "localhost" is both loopback addresses
 * @param {number} [options.port] the first to try; 0 for any
 * @param {KernelProxy} [options.kernels] where live code runs
 * @returns {Promise<{url: string, port: number, close: () => Promise<void>}>}
 */
export async function serve({ root, renderDeck, host = "localhost", port = 1948, kernels = new KernelProxy(() => null) }) {
  const news = broadcast();
  const app = application(root, renderDeck, await hostNames(host), news.subscribe, kernels);
  const servers = await listen(app, host === "localhost" ? loopback : [host], port);
  const address = /** @type {import("node:net").AddressInfo} */ (servers[0].address());
  /** @type {Set<import("node:stream").Duplex>} */
  const webSockets = new Set();
  for (const server of servers) server.on("upgrade", (request, socket, head) => {
    webSockets.add(socket);
    socket.once("close", () => webSockets.delete(socket));
    kernels.upgrade(request, socket, head);
  });
  const stopWatching = await watchChanges(root, () => deckNames(root), news.tell);
  return {
    url: `http://${inUrl(loopbackOf[host] ?? host)}:${address.port}`,
    port: address.port,
    close: async () => {
      await stopWatching();
      for (const socket of webSockets) socket.destroy(); // the servers would wait for them
      await Promise.all(servers.map((server) => new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      })));
    },
  };
}

/**
 * @param {string} root
 * @param {import("./decks.mjs").RenderDeck} renderDeck
 * @param {Set<string>} hosts
 * @param {express.RequestHandler} subscribe
 * @param {KernelProxy} kernels
 */
function application(root, renderDeck, hosts, subscribe, kernels) {
  const app = express();
  const keep = keepPages(root);
  app.disable("x-powered-by");
  app.use((request, response, next) => {
    response.set(headers);
    const urlPath = pathOf(request.url);
    if (!hosts.has(nameInHostHeader(request.headers.host)))
      refuse(response, 403, "This name is not the server's: start it with --host NAME");
    else if (urlPath?.startsWith("/kernel/")) kernels.answer(request, response).catch(next);
    else if (request.method !== "GET" && request.method !== "HEAD")
      refuse(response.set("Allow", "GET, HEAD"), 405, "Only GET and HEAD are answered");
    else if (urlPath === null) refuse(response, 400, "Malformed URL");
    else {
      response.locals.path = urlPath;
      next();
    }
  });
  app.get("/", answering(async (response) => {
    const page = await keep("/", async () => indexPage(await describeDecks(root), (deck) => deck));
    response.type("html").send(page);
  }));
  app.get("/events", subscribe);
  app.get("/enter", answering(async (response) => {
    response.set("Cache-Control", "no-store").send(enterPage());
  }));
  app.use(answering(async (response, next) => {
    const asked = response.locals.path.slice(1).normalize();
    const name = (await deckNames(root)).find((deck) => deck.normalize() === asked);
    if (!name) {
      const reason = (await forgottenDecks(root)).get(asked);
      return reason ? refuse(response, 404, reason) : next();
    }
    try {
      const page = await keep(`/${name}`, () => renderDeck(name, { watch: true, sources: true }));
      response.type("html").send(page);
    } catch (error) {
      console.error(`slides/${name}: ${oneLine(error)}`);
      response.status(500).send(brokenDeckPage(name, oneLine(error)));
    }
  }));
  app.use(answering(async (response, next) => {
    const { name, kind } = moduleAsked(root, response.locals.path);
    if (kind !== "html") return next();
    response.type("html").send(await keep(response.locals.path, () => sourcePage(root, name, "/")));
  }));
  app.use(answering(async (response, next) => {
    const file = moduleFile(root, response.locals.path) ?? await staticFile(root, response.locals.path);
    if (!file) return next();
    response.set("Content-Security-Policy", filePolicy);
    response.sendFile(file, { root, cacheControl: false, dotfiles: "deny" }, (error) => error && next(error));
  }));
  app.use((_request, response) => refuse(response, 404, "There is nothing here"));
  app.use(/** @type {express.ErrorRequestHandler} */ ((error, _request, response, next) => {
    if (error.code === "ECONNABORTED") return; // the browser has gone to another page
    if (response.headersSent) return next(error);
    const status = error.status ?? 500;
    if (status >= 500) console.error(error);
    refuse(response, status, status >= 500 ? "The server could not answer" : error.message);
  }));
  return app;
}

/**
 * Express 4 does not look after a promise that fails.
 * @param {(response: express.Response, next: express.NextFunction) => Promise<void>} answer
 * @returns {express.RequestHandler}
 */
const answering = (answer) => (_request, response, next) => answer(response, next).catch(next);

/**
 * @param {express.Response} response
 * @param {number} status
 * @param {string} message
 */
function refuse(response, status, message) {
  response.status(status).send(messagePage(status, message));
}

/**
 * @param {string} url as the request has it
 * @returns {string | null} the decoded path, null if the URL is malformed
 */
function pathOf(url) {
  if (!url.startsWith("/")) return null;
  try {
    const decoded = decodeURIComponent(url.split("?")[0]);
    return /[\0-\x1f\x7f\\]/.test(decoded) ? null : decoded;
  } catch {
    return null;
  }
}

/**
 * @param {string} root
 * @param {string} urlPath
 * @returns {{name: string, kind?: string}} a module that is there, and what of it
 */
function moduleAsked(root, urlPath) {
  const [, folder, name = "", kind] = /^\/(source|notebooks)\/([^/]+)\.(html|py|ipynb)$/.exec(urlPath) ?? [];
  const isThere = moduleFiles(root).some((module) => module.name === name);
  return isThere && (kind === "ipynb") === (folder === "notebooks") ? { name, kind } : { name };
}

/**
 * @param {string} root
 * @param {string} urlPath
 * @returns {string | null} the file of a module, or its notebook's, relative to the root
 */
function moduleFile(root, urlPath) {
  const { name, kind } = moduleAsked(root, urlPath);
  return kind === "py" ? `code/${name}.py` : kind === "ipynb" ? freshNotebook(root, name) : null;
}

/**
 * @param {string} root
 * @param {string} urlPath
 * @returns {Promise<string | null>} the file, relative to the root; null if it is not one of static/'s
 */
async function staticFile(root, urlPath) {
  if (!urlPath.startsWith("/static/") || urlPath.endsWith("/")) return null;
  const folder = path.join(await realpath(root), "static");
  const file = await realpath(path.join(root, urlPath)).catch(() => null);
  const name = file && (await stat(file)).isFile() && path.relative(folder, file);
  const outside = !name || path.isAbsolute(name) || name.split(path.sep).some((part) => part.startsWith("."));
  return outside ? null : path.join("static", name);
}

// Hosts ---------------------------------------------------------------------

/**
 * The names by which this server may be asked: a page of another name, which an
 * attacker's name server points here, must not read it.
 * @param {string} host
 * @returns {Promise<Set<string>>}
 */
async function hostNames(host) {
  const names = ["localhost", ...loopback, host];
  if (everywhere.includes(host)) {
    const interfaces = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
    names.push(hostname(), ...interfaces.map(({ address }) => address));
  } else {
    names.push(...(await lookup(host, { all: true }).catch(() => [])).map(({ address }) => address));
  }
  return new Set(names.map((name) => inUrl(name).toLowerCase()));
}

/** @param {string} host */
const inUrl = (host) => (host.includes(":") ? `[${host}]` : host);

/** @param {string | undefined} header */
const nameInHostHeader = (header = "") =>
  /^(\[[\da-f:.]+\]|[^:]+)(:\d+)?$/i.exec(header)?.[1].toLowerCase() ?? "";

/**
 * Listens on all hosts at the first port from `port` on that is free on each of them.
 * @param {import("node:http").RequestListener} app
 * @param {string[]} hosts
 * @param {number} port
 */
async function listen(app, hosts, port) {
  for (let attempt = 0; attempt < 100 && port + attempt < 65536; attempt++) {
    const candidate = port && port + attempt;
    const servers = [];
    try {
      for (const host of hosts) {
        const server = await listenAt(app, host, candidate || portOf(servers[0]));
        if (server) servers.push(server);
      }
      return servers;
    } catch (error) {
      for (const server of servers) server.close();
      const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
      if (code !== "EADDRINUSE") throw new UserError(`Cannot listen on ${hosts[0]}, port ${candidate}: ${message}`);
    }
  }
  throw new UserError(`No free port from ${port} on: give another with --port.`);
}

/** @param {import("node:http").Server | undefined} server */
const portOf = (server) =>
  /** @type {import("node:net").AddressInfo | undefined} */ (server?.address())?.port ?? 0;

/**
 * @param {import("node:http").RequestListener} app
 * @param {string} host
 * @param {number} port
 * @returns {Promise<import("node:http").Server | null>} null where the machine has no IPv6
 */
function listenAt(app, host, port) {
  return new Promise((resolve, reject) => {
    const server = createServer(app);
    server.once("error", (/** @type {NodeJS.ErrnoException} */ error) =>
      host === "::1" && ["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes(error.code ?? "") ? resolve(null) : reject(error));
    server.listen(port, host, () => resolve(server));
  });
}

// Events --------------------------------------------------------------------

/** Each page that is open holds a connection: a browser has few, a class has many, and nobody takes them all. */
const mostPages = { ofAddress: 32, inAll: 512 };

/** Server-sent events to every page that is open. */
function broadcast() {
  /** @type {Map<express.Response, string>} */
  const pages = new Map();
  return {
    /** @type {express.RequestHandler} */
    subscribe(request, response) {
      const address = request.socket.remoteAddress ?? "";
      const own = [...pages.values()].filter((other) => other === address).length;
      if (own >= mostPages.ofAddress || pages.size >= mostPages.inAll)
        return void response.status(503).type("text").send("Too many pages are open: this one does not hear of changes\n");
      response.type("text/event-stream");
      if (request.method === "HEAD") return void response.end();
      response.write("retry: 500\n\n");
      pages.set(response, address);
      response.once("close", () => pages.delete(response));
    },
    /** @param {import("./watch.mjs").Change} change */
    tell(change) {
      for (const page of pages.keys()) {
        // Whoever does not read is let go; a browser comes back, and takes the page as it is then.
        if (page.writableNeedDrain) page.destroy();
        else page.write(`data: ${JSON.stringify(change)}\n\n`);
      }
    },
  };
}
