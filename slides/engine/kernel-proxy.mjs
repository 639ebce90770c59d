/**
 * The way from a deck's page to the kernels: /enter lets a browser in, /kernel/ passes on what it may ask.
 *
 * Who may run code here may do anything that the lecturer may. So a page is let in by a cookie that only the browser
 * which opened our one-time link has; it is asked from this machine, under its own name, by our own pages; and only
 * what live code needs is passed on. The server's token stays on this side.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import http from "node:http";
import https from "node:https";

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
const loopback = /^(127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/;
const ownName = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i;

export class KernelProxy {
  /** @param {FindTarget} findTarget */
  constructor(findTarget) {
    this.findTarget = findTarget;
    /** @type {Set<string>} */
    this.keys = new Set();
    this.secret = secret();
    this.cookie = `live-${randomBytes(4).toString("hex")}`;
  }

  /** A key that lets one browser in, once. */
  newKey() {
    const key = secret();
    this.keys.add(key);
    return key;
  }

  /**
   * @param {Request} request
   * @param {string} key
   * @returns {string | null} the cookie for the browser that has this key, null if it is none or used
   */
  enter(request, key) {
    const known = [...this.keys].find((other) => same(other, key));
    if (!known || !isLocal(request)) return null;
    this.keys.delete(known);
    return `${this.cookie}=${this.secret}; Path=/kernel/; HttpOnly; SameSite=Strict`;
  }

  /**
   * @param {Request} request
   * @returns {string | null} why it is not answered
   */
  refusal(request) {
    const { origin, host } = request.headers;
    const site = request.headers["sec-fetch-site"];
    if (!isLocal(request)) return "Live code is for this machine only";
    if (origin !== undefined ? origin !== `http://${host}` : request.method !== "GET" || isUpgrade(request))
      return "Live code is for the slides' own pages";
    if (site !== undefined && site !== "same-origin") return "Live code is for the slides' own pages";
    const cookies = (request.headers.cookie ?? "").split(/; */);
    const own = cookies.find((cookie) => cookie.startsWith(`${this.cookie}=`))?.slice(this.cookie.length + 1);
    return same(own ?? "", this.secret) ? null : "Live code is for the browser that npm start opened";
  }

  /**
   * Answers a request to /kernel/.
   * @param {Request} request
   * @param {import("node:http").ServerResponse} response
   */
  async answer(request, response) {
    const path = pathOf(request);
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
    try {
      const answer = await fetch(new URL(path, target.url), {
        method: request.method,
        headers: { Authorization: `token ${target.token}`, "Content-Type": "application/json" },
        body: request.method === "POST" ? body : undefined,
        redirect: "error",
      });
      const text = await answer.text();
      response.writeHead(answer.status, text ? { "Content-Type": "application/json" } : {}).end(text);
    } catch {
      sendJson(response, 502, { message: "The Jupyter server does not answer" });
    }
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
    const url = new URL(path, target.url);
    url.search = new URL(request.url, "http://localhost").search;
    const kept = Object.entries(request.headers).filter(([name]) => name.startsWith("sec-websocket-"));
    const outgoing = (url.protocol === "https:" ? https : http).request(url, {
      headers: {
        ...Object.fromEntries(kept), Connection: "Upgrade", Upgrade: "websocket",
        Authorization: `token ${target.token}`,
      },
    });
    outgoing.on("upgrade", ({ headers }, upstream, upstreamHead) => {
      const lines = Object.entries(headers).filter(([name]) => name.startsWith("sec-websocket-"));
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
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(content));
}
