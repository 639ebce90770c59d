/** Who gets to the kernels, what is passed on, and that the token stays: with a stand-in for Jupyter. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { otherJupyter, parseAddress } from "../slides/engine/jupyter.mjs";
import { KernelProxy } from "../slides/engine/kernel-proxy.mjs";
import { serve } from "../slides/engine/serve.mjs";

const token = "the-token-of-jupyter";
const kernel = "0b6e3a52-2c1f-4a29-9f0e-6ad0c2f8d0aa";
/** @type {string} */ let root;
/** @type {http.Server} */ let jupyter;
/** @type {http.Server} the same at a Unix socket */ let atSocket;
/** @type {KernelProxy} */ let kernels;
/** @type {Awaited<ReturnType<typeof serve>>} */ let server;
/** @type {string} */ let secret;
/** @type {import("../slides/engine/jupyter.mjs").Target[]} over TCP and over a Unix socket */ let targets;
/** @type {import("../slides/engine/jupyter.mjs").Target} */ let target;
/** @type {{method?: string, url?: string, headers: http.IncomingHttpHeaders}[]} what reached the stand-in */
const reached = [];
let isThere = true;

before(async () => {
  root = await mkdtemp(path.join(tmpdir(), "kernels-"));
  await mkdir(path.join(root, "slides"));
  await writeFile(path.join(root, "slides/cnn.md"), "# A");
  jupyter = http.createServer(({ method, url, headers }, response) => {
    reached.push({ method, url, headers });
    response.setHeader("Set-Cookie", `token=${token}`);
    if (url?.endsWith("away")) response.writeHead(302, { Location: "http://example.org/" });
    response.end(JSON.stringify({ id: kernel }));
  });
  jupyter.on("upgrade", ({ url, headers }, socket) => {
    reached.push({ url, headers });
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      + `${headers["sec-websocket-protocol"] ? "Sec-WebSocket-Protocol: v1\r\n" : ""}`
      + `Sec-WebSocket-Accept: yes\r\nX-Token: ${token}\r\n\r\nhello`);
    socket.on("data", (/** @type {Buffer} */ data) => socket.write(`heard ${data}`)).on("error", () => {});
  });
  await new Promise((resolve) => jupyter.listen(0, "127.0.0.1", () => resolve(null)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (jupyter.address());
  const socketPath = path.join(root, "socket");
  atSocket = http.createServer(jupyter.listeners("request")[0]).on("upgrade", jupyter.listeners("upgrade")[0]);
  await new Promise((resolve) => atSocket.listen(socketPath, () => resolve(null)));
  targets = [
    { url: new URL(`http://127.0.0.1:${port}/user/ada/`), token },
    { url: new URL("http://localhost/user/ada/"), token, socketPath },
  ];
  [target] = targets;
  kernels = new KernelProxy(() => (isThere ? target : null));
  server = await serve({ root, renderDeck: async () => "<p>deck</p>", port: 0, kernels });
  const entered = await enter(kernels.newKey());
  assert.equal(entered.status, 200);
  ({ secret } = JSON.parse(entered.body));
});

after(async () => {
  await server.close();
  for (const stand of [jupyter, atSocket]) {
    stand.closeAllConnections();
    stand.close();
  }
  await rm(root, { recursive: true });
});

/**
 * @param {string} target
 * @param {http.RequestOptions & {body?: string}} [options]
 * @returns {Promise<{status: number, headers: http.IncomingHttpHeaders, body: string}>}
 */
function ask(target, { body, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: "127.0.0.1", port: server.port, path: target, ...options }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    request.on("upgrade", (response, socket, head) => {
      let text = String(head);
      socket.write("there");
      socket.on("data", (/** @type {Buffer} */ data) => {
        text += data;
        if (!text.includes("heard there")) return;
        socket.destroy();
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text });
      });
    });
    request.on("error", reject).end(body);
  });
}

const ourOrigin = () => `http://127.0.0.1:${server.port}`;
const own = () => ({ Authorization: `token ${secret}`, Origin: ourOrigin() });
const upgrade = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Key": "a2V5", "Sec-WebSocket-Version": "13" };
const webSocket = () => ({ ...upgrade, Origin: ourOrigin(), "Sec-WebSocket-Protocol": `v1, live, live.${secret}` });
/** @param {string} key @param {http.OutgoingHttpHeaders} [headers] */
const enter = (key, headers = { Origin: ourOrigin() }) => ask("/kernel/enter", { method: "POST", headers, body: key });
const channels = `/kernel/api/kernels/${kernel}/channels?session_id=1`;

test("passes on what live code needs, with the token and without what the browser sent", async () => {
  for (target of targets) for (const [method, target] of [
    ["POST", "/kernel/api/sessions"], ["GET", `/kernel/api/kernels/${kernel}`],
    ["POST", `/kernel/api/kernels/${kernel}/interrupt`], ["POST", `/kernel/api/kernels/${kernel}/restart`],
  ]) {
    const answer = await ask(target, { method, headers: own(), body: method === "POST" ? "{}" : undefined });
    assert.equal(answer.status, 200, target);
    assert.equal(JSON.parse(answer.body).id, kernel);
    const last = reached.at(-1);
    assert.equal(last?.url, target.replace("/kernel/", "/user/ada/"));
    assert.equal(last?.headers.authorization, `token ${token}`);
    assert.equal(last?.headers.cookie, undefined);
  }
});

test("passes a WebSocket on, both ways, and keeps the secret among its protocols", async () => {
  for (target of targets) {
    const answer = await ask(channels, { headers: webSocket() });
    assert.equal(answer.status, 101);
    assert.equal(answer.body, "helloheard there");
    assert.equal(answer.headers["sec-websocket-protocol"], "v1");
    const last = reached.at(-1);
    assert.equal(last?.url, channels.replace("/kernel/", "/user/ada/"));
    assert.equal(last?.headers.authorization, `token ${token}`);
    assert.equal(last?.headers.origin, undefined);
    assert.equal(last?.headers["sec-websocket-protocol"], "v1");
  }
});

test("chooses a protocol where the Jupyter server chooses none, as browsers demand", async () => {
  const headers = { ...webSocket(), "Sec-WebSocket-Protocol": `live, live.${secret}` };
  const answer = await ask(channels, { headers });
  assert.equal(answer.headers["sec-websocket-protocol"], "live");
  assert.equal(reached.at(-1)?.headers["sec-websocket-protocol"], undefined);
});

test("follows no redirection of the Jupyter server", async () => {
  assert.equal((await ask("/kernel/api/kernels/away", { headers: own() })).status, 502);
});

test("passes nothing else on", async () => {
  const before = reached.length;
  for (const [method, target] of [
    ["GET", "/kernel/api/contents/code"], ["GET", "/kernel/api/kernels"], ["DELETE", `/kernel/api/kernels/${kernel}`],
    ["POST", "/kernel/api/terminals"], ["GET", "/kernel/api/sessions"], ["POST", "/kernel/api/kernels"],
    ["GET", `/kernel/api/kernels/${kernel}/../../contents`], ["GET", "/kernel/"], ["GET", "/kernel/tree"],
    ["GET", `/kernel/api/kernels/..%2f..%2fcontents`], ["PUT", "/kernel/api/sessions"],
  ]) assert.equal((await ask(target, { method, headers: own() })).status, 404, `${method} ${target}`);
  const long = await ask("/kernel/api/sessions", { method: "POST", headers: own(), body: " ".repeat(20_000) });
  assert.equal(long.status, 413);
  for (const target of ["/kernel/api/kernels/x/channels/../../contents", "/kernel/api/events/subscribe", "/events"])
    assert.equal((await ask(target, { headers: webSocket() })).status, 404, target);
  assert.equal(reached.length, before);
});

/** @param {string} secret */
const secretAs = (secret) => ({ Authorization: `token ${secret}` });
/** @type {[string, () => http.OutgoingHttpHeaders][]} */
const refused = [
  ["no secret", () => ({ Origin: ourOrigin() })],
  ["a wrong secret", () => ({ ...own(), ...secretAs(`${secret.slice(0, -1)}!`) })],
  ["a part of the secret", () => ({ ...own(), ...secretAs(secret.slice(1)) })],
  ["the secret in a cookie", () => ({ Origin: ourOrigin(), Cookie: `live=${secret}; token=${secret}` })],
  ["another origin", () => ({ ...own(), Origin: "https://example.org" })],
  ["another port", () => ({ ...own(), Origin: "http://127.0.0.1:1" })],
  ["an opaque origin", () => ({ ...own(), Origin: "null" })],
  ["no origin", () => ({ ...own(), Origin: undefined })],
  ["another site", () => ({ ...own(), "Sec-Fetch-Site": "cross-site" })],
  ["another port of this site", () => ({ ...own(), "Sec-Fetch-Site": "same-site" })],
  ["a foreign name", () => ({ ...own(), Host: "example.org", Origin: "http://example.org" })],
];
for (const [what, headers] of refused) test(`refuses ${what}`, async () => {
  const before = reached.length;
  const asked = Object.fromEntries(Object.entries(headers()).filter(([, value]) => value !== undefined));
  assert.equal((await ask("/kernel/api/sessions", { method: "POST", headers: asked })).status, 403);
  const protocols = `v1, live, live.${String(asked.Authorization ?? "").slice("token ".length)}`;
  assert.equal((await ask(channels, { headers: { ...upgrade, ...asked, "Sec-WebSocket-Protocol": protocols } })).status, 403);
  assert.equal(reached.length, before);
});

test("takes the secret of a WebSocket from its protocols alone, which no page can leave out", async () => {
  assert.equal((await ask(channels, { headers: { ...upgrade, ...own() } })).status, 403);
});

test("refuses another machine, even one with the secret", () => {
  for (const [remoteAddress, refuses] of /** @type {const} */ ([
    ["192.168.1.7", true], ["::ffff:10.0.0.2", true], ["fe80::1", true], ["127.0.0.1", false], ["::ffff:127.0.0.1", false],
  ])) {
    const request = /** @type {any} */ ({
      method: "GET", socket: { remoteAddress }, headers: { host: "localhost:1948", authorization: `token ${secret}` },
    });
    assert.equal(kernels.refusal(request) !== null, refuses, remoteAddress);
  }
});

test("lets one browser in with a key, and nobody without", async () => {
  const key = kernels.newKey();
  for (const wrong of ["", "wrong", `${key}x`, key.slice(1)]) assert.equal((await enter(wrong)).status, 403);
  const entered = await enter(key);
  assert.deepEqual(JSON.parse(entered.body), { secret });
  assert.equal(entered.headers["cache-control"], "no-store");
  const again = await enter(key);
  assert.equal(again.status, 403);
  assert.match(JSON.parse(again.body).message, /used already/);
});

test("keeps a key for the page that it was made for: previews, prefetches and other pages spend none", async () => {
  const key = kernels.newKey();
  for (const method of ["HEAD", "GET"]) for (const headers of /** @type {http.OutgoingHttpHeaders[]} */ ([
    {}, { "Sec-Purpose": "prefetch;prerender" }, { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image" },
  ])) {
    const answer = await ask(`/enter?key=${key}&deck=cnn.md`, { method, headers });
    assert.deepEqual([answer.status, answer.headers["set-cookie"]], [200, undefined]);
    assert.doesNotMatch(answer.body, new RegExp(secret));
    assert.notEqual((await ask(`/kernel/enter?key=${key}`, { method, headers: { ...own(), ...headers } })).status, 200);
  }
  for (const headers of [
    {}, { Origin: "null" }, { Origin: "https://example.org" }, { Origin: "http://127.0.0.1:1" },
    { Origin: "http://example.org", Host: "example.org" }, { Origin: ourOrigin(), "Sec-Fetch-Site": "cross-site" },
  ]) assert.equal((await enter(key, headers)).status, 403, JSON.stringify(headers));
  assert.equal((await enter(key)).status, 200);
});

test("never tells the token", async () => {
  const answers = [
    await ask("/kernel/api/sessions", { method: "POST", headers: own(), body: "{}" }),
    await ask(channels, { headers: webSocket() }), await ask("/kernel/state", { headers: own() }),
    await ask("/cnn.md"), await ask("/"),
  ];
  for (const { headers, body } of answers) assert.doesNotMatch(JSON.stringify(headers) + body, new RegExp(token));
});

test("says when there is no Jupyter server, and to whom it is closed", async () => {
  assert.equal((await ask("/kernel/state")).body, '{"access":"closed"}');
  assert.equal((await ask("/kernel/state", { headers: own() })).body, '{"access":"open"}');
  isThere = false;
  try {
    assert.equal((await ask("/kernel/state", { headers: own() })).body, '{"access":"waiting"}');
    assert.equal((await ask("/kernel/api/sessions", { method: "POST", headers: own() })).status, 503);
    assert.equal((await ask(channels, { headers: webSocket() })).status, 503);
  } finally {
    isThere = true;
  }
});

test("warns of another server on another machine that is asked in clear", async () => {
  for (const [address, warns] of /** @type {const} */ ([
    ["http://192.0.2.1:8888/", true], ["http://localhost.example.org/", true], ["http://127.example.org/", true],
    ["https://hub.example.org/", false], [targets[0].url.href, false], ["http://localhost:1/", false], ["http://[::1]:1/", false],
  ])) {
    /** @type {string[]} */
    const said = [];
    const { error } = console;
    const { fetch } = globalThis;
    console.error = (text) => said.push(text);
    globalThis.fetch = async () => new Response("{}", { headers: { "Content-Type": "application/json" } });
    process.env.JUPYTER_TOKEN = token;
    try {
      await otherJupyter(address);
    } finally {
      Object.assign(globalThis, { fetch });
      console.error = error;
      delete process.env.JUPYTER_TOKEN;
    }
    assert.equal(said.length, warns ? 1 : 0, address);
    for (const line of said) assert.match(line, /^[^\n]*unencrypted[^\n]*$/);
    assert.doesNotMatch(said.join(), new RegExp(token));
  }
});

test("takes the address of another server, but no token in it", () => {
  assert.equal(parseAddress("http://localhost:8888").href, "http://localhost:8888/");
  assert.equal(parseAddress("https://hub.example.org/user/ada").href, "https://hub.example.org/user/ada/");
  for (const address of ["localhost:8888", "ftp://localhost/", "http://localhost:8888/?token=secret", "", "http://a:b@c/"])
    assert.throws(() => parseAddress(address), (error) => !/secret/.test(/** @type {Error} */ (error).message)
      && /give the server's address/.test(/** @type {Error} */ (error).message));
});
