/**
 * The way from a deck's page to the kernels: /kernel/enter lets a browser in, the rest of /kernel/ is passed on.
 *
 * Who may run code here may do anything that the lecturer may. So a page needs a secret that only the browser which
 * opened our one-time link has: in a header, because cookies go to every port of this machine, those of its other
 * users too; a WebSocket has it among its subprotocols. It is asked from this machine, under its own name, by our own
 * pages; and only what live code needs is passed on. The server's token stays on this side.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import http from "node:http";
import https from "node:https";
import { pipeline } from "node:stream";

/**
 * @typedef {import("node:http").IncomingMessage} Request
 * @typedef {() => import("./jupyter.mjs").Target | null} FindTarget
 */

const id = "[\\w-]{1,64}";
const passed = [
  ["POST", /^api\/sessions$/],
  ["GET", new RegExp(`^api/kernels/${id}$`)],
  ["POST", new RegExp(`^api/kernels/${id}/(interrupt|restart)$`)],
];
const channels = new RegExp(`^api/kernels/${id}/channels$`);
const longestBody = 10_000;
const protocolHeader = "sec-websocket-protocol";
const ownProtocol = /^live(\.|$)/; // "live.SECRET", and "live" to choose where the Jupyter server chooses none
const loopback = /^(127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/;
const ownName = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i;

export class KernelProxy {
  /** @param {FindTarget} findTarget */
  constructor(findTarget) {
    this.findTarget = findTarget;
    /** @type {Set<string>} */
    this.keys = new Set();
    this.secret = secret();
  }

  /** A key that lets one browser in, once. */
  newKey() {
    const key = secret();
    this.keys.add(key);
    return key;
  }

  /**
   * @param {string} key
   * @returns {string | null} the secret for the browser that has this key, null if it is none or used
   */
  enter(key) {
    const known = [...this.keys].find((other) => same(other, key));
    if (!known) return null;
    this.keys.delete(known);
    return this.secret;
  }

  /**
   * @param {Request} request
   * @returns {string | null} why it is not answered
   */
  refusal(request) {
    const refusal = foreign(request);
    if (refusal) return refusal;
    return same(secretIn(request), this.secret) ? null : "Live code is for the browser that npm start opened";
  }

  /**
   * Answers a request to /kernel/.
   * @param {Request} request
   * @param {import("node:http").ServerResponse} response
   */
  async answer(request, response) {
    const path = pathOf(request);
    if (path === "enter" && request.method === "POST") return this.answerEnter(request, response);
    const refusal = this.refusal(request);
    const target = this.findTarget();
    if (path === "state" && request.method === "GET")
      return sendJson(response, 200, { access: refusal ? "closed" : target ? "open" : "waiting" });
    if (refusal) return sendJson(response, 403, { message: refusal });
    if (!target) return sendJson(response, 503, { message: "There is no Jupyter server yet" });
    if (!passed.some(([method, pattern]) => method === request.method && /** @type {RegExp} */ (pattern).test(path)))
      return sendJson(response, 404, { message: "This is not passed on" });
    const body = await bodyOf(request);
    if (body === null) return sendJson(response, 413, { message: "This is too long" });
    const outgoing = ask(target, path, { method: request.method, headers: { "Content-Type": "application/json" } });
    outgoing.on("response", (answer) => {
      const { statusCode: status = 0 } = answer;
      if (status >= 300 && status < 400) return void outgoing.destroy(new Error("A redirection is not followed"));
      response.writeHead(status, status === 204 ? {} : { "Content-Type": "application/json" });
      pipeline(answer, response, () => {});
    });
    outgoing.on("error", () => {
      if (response.headersSent) response.destroy();
      else sendJson(response, 502, { message: "The Jupyter server does not answer" });
    });
    outgoing.end(request.method === "POST" ? body : undefined);
  }

  /**
   * Lets a browser in: our page /enter asks, with the key of our link.
   * @param {Request} request
   * @param {import("node:http").ServerResponse} response
   */
  async answerEnter(request, response) {
    const refusal = foreign(request);
    if (refusal) return sendJson(response, 403, { message: refusal });
    const secret = this.enter(String(await bodyOf(request)));
    if (secret) sendJson(response, 200, { secret });
    else sendJson(response, 403, { message: "This link was used already: run npm start again for another one" });
  }

  /**
   * Passes a WebSocket on.
   * @param {Request} request
   * @param {import("node:stream").Duplex} socket
   * @param {Buffer} head
   */
  upgrade(request, socket, head) {
    socket.on("error", () => socket.destroy());
    const refuse = (/** @type {string} */ status) => socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
    const path = pathOf(request);
    const target = this.findTarget();
    if (!request.url?.startsWith("/kernel/")) return refuse("404 Not Found");
    if (this.refusal(request)) return refuse("403 Forbidden");
    if (!channels.test(path)) return refuse("404 Not Found");
    if (!target) return refuse("503 Service Unavailable");
    const headers = webSocketHeaders(request.headers);
    const protocols = protocolsOf(request).filter((name) => !ownProtocol.test(name)).join(", ");
    delete headers[protocolHeader];
    const outgoing = ask(target, `${path}${new URL(request.url, "http://localhost").search}`, {
      headers: {
        ...headers, ...(protocols && { [protocolHeader]: protocols }), Connection: "Upgrade", Upgrade: "websocket",
      },
    });
    outgoing.on("upgrade", (answer, upstream, upstreamHead) => {
      // A browser takes no answer that chooses none of the protocols which it has named.
      const lines = Object.entries({ [protocolHeader]: "live", ...webSocketHeaders(answer.headers) });
      socket.write(["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket",
        ...lines.map(([name, value]) => `${name}: ${value}`), "", ""].join("\r\n"));
      socket.write(upstreamHead);
      upstream.write(head);
      upstream.on("error", () => socket.destroy()).on("close", () => socket.destroy());
      socket.on("close", () => upstream.destroy());
      socket.pipe(upstream).pipe(socket);
    });
    outgoing.on("response", (response) => {
      response.resume();
      refuse(response.statusCode === 404 ? "404 Not Found" : "502 Bad Gateway");
    });
    outgoing.on("error", () => refuse("502 Bad Gateway"));
    socket.on("close", () => outgoing.destroy());
    outgoing.end();
  }
}

const secret = () => randomBytes(32).toString("base64url");

/** @param {string} a @param {string} b */
function same(a, b) {
  const [first, second] = [Buffer.from(a), Buffer.from(b)];
  return first.length === second.length && timingSafeEqual(first, second);
}

/**
 * Asks the Jupyter server; who gets the request ends it.
 * @param {import("./jupyter.mjs").Target} target
 * @param {string} path below its URL
 * @param {http.RequestOptions & {headers: http.OutgoingHttpHeaders}} options
 */
function ask({ url, token, socketPath }, path, { headers, ...options }) {
  const { request } = url.protocol === "https:" ? https : http;
  const agent = false; // a connection that is kept may be closed just when it is used again
  return request(new URL(path, url), {
    ...options, socketPath, agent, headers: { ...headers, Authorization: `token ${token}` },
  });
}

/**
 * @param {Request} request
 * @returns {string | null} why it is not from a page of ours on this machine
 */
function foreign(request) {
  const { origin, host } = request.headers;
  const site = request.headers["sec-fetch-site"];
  if (!isLocal(request)) return "Live code is for this machine only";
  if (origin !== undefined ? origin !== `http://${host}` : request.method !== "GET" || isUpgrade(request))
    return "Live code is for the slides' own pages";
  return site === undefined || site === "same-origin" ? null : "Live code is for the slides' own pages";
}

/** @param {Request} request */
function secretIn(request) {
  if (!isUpgrade(request)) return request.headers.authorization?.replace(/^token /, "") ?? "";
  return protocolsOf(request).find((name) => name.startsWith("live."))?.slice("live.".length) ?? "";
}

/** @param {Request} request */
const protocolsOf = ({ headers }) => (headers[protocolHeader] ?? "").split(/\s*,\s*/).filter(Boolean);

/** @param {http.IncomingHttpHeaders} headers */
const webSocketHeaders = (headers) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith("sec-websocket-")));

/** @param {Request} request from this machine, and under a name that is its own */
const isLocal = ({ socket, headers }) =>
  loopback.test(socket.remoteAddress ?? "") && ownName.test(headers.host ?? "");

/** @param {Request} request */
const isUpgrade = ({ headers }) => headers.upgrade !== undefined;

/** @param {Request} request its path below /kernel/, without the query */
const pathOf = ({ url = "" }) => url.split("?")[0].replace(/^\/kernel\//, "");

/** @param {Request} request */
async function bodyOf(request) {
  /** @type {Buffer[]} */
  const parts = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > longestBody) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/**
 * @param {import("node:http").ServerResponse} response
 * @param {number} status
 * @param {object} content
 */
function sendJson(response, status, content) {
  response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store" }).end(JSON.stringify(content));
}
