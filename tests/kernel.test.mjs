/** Who gets to the kernels, what is passed on, and that the token stays: with a stand-in for Jupyter. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { parseAddress } from "../slides/engine/jupyter.mjs";
import { KernelProxy } from "../slides/engine/kernel-proxy.mjs";
import { serve } from "../slides/engine/serve.mjs";

const token = "the-token-of-jupyter";
const kernel = "0b6e3a52-2c1f-4a29-9f0e-6ad0c2f8d0aa";
/** @type {string} */ let root;
/** @type {http.Server} */ let jupyter;
/** @type {KernelProxy} */ let kernels;
/** @type {Awaited<ReturnType<typeof serve>>} */ let server;
/** @type {string} */ let cookie;
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
    response.end(JSON.stringify({ id: kernel }));
  });
  jupyter.on("upgrade", ({ url, headers }, socket) => {
    reached.push({ url, headers });
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      + `Sec-WebSocket-Accept: yes\r\nX-Token: ${token}\r\n\r\nhello`);
    socket.on("data", (/** @type {Buffer} */ data) => socket.write(`heard ${data}`)).on("error", () => {});
  });
  await new Promise((resolve) => jupyter.listen(0, "127.0.0.1", () => resolve(null)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (jupyter.address());
  const target = { url: new URL(`http://127.0.0.1:${port}/user/ada/`), token };
  kernels = new KernelProxy(() => (isThere ? target : null));
  server = await serve({ root, renderDeck: async () => "<p>deck</p>", port: 0, kernels });
  const entered = await ask(`/enter?key=${kernels.newKey()}&deck=cnn.md`);
  assert.equal(entered.status, 303);
  assert.equal(entered.headers.location, "/cnn.md");
  [cookie] = entered.headers["set-cookie"]?.[0].split(";") ?? [];
});

after(async () => {
  await server.close();
  jupyter.closeAllConnections();
  jupyter.close();
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

const own = () => ({ Cookie: cookie, Origin: `http://127.0.0.1:${server.port}` });
const upgrade = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Key": "a2V5", "Sec-WebSocket-Version": "13" };
const webSocket = () => ({ ...own(), ...upgrade });
const channels = `/kernel/api/kernels/${kernel}/channels?session_id=1`;

test("passes on what live code needs, with the token and without what the browser sent", async () => {
  for (const [method, target] of [
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

test("passes a WebSocket on, both ways", async () => {
  const answer = await ask(channels, { headers: webSocket() });
  assert.equal(answer.status, 101);
  assert.equal(answer.body, "helloheard there");
  assert.equal(reached.at(-1)?.url, channels.replace("/kernel/", "/user/ada/"));
  assert.equal(reached.at(-1)?.headers.authorization, `token ${token}`);
  assert.equal(reached.at(-1)?.headers.origin, undefined);
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

/** @type {[string, () => http.OutgoingHttpHeaders][]} */
const refused = [
  ["no cookie", () => ({ ...own(), Cookie: "" })],
  ["a wrong cookie", () => ({ ...own(), Cookie: `${cookie.slice(0, -1)}-` })],
  ["a cookie of another name", () => ({ ...own(), Cookie: cookie.replace("live-", "dead-") })],
  ["another origin", () => ({ ...own(), Origin: "https://example.org" })],
  ["another port", () => ({ ...own(), Origin: "http://127.0.0.1:1" })],
  ["an opaque origin", () => ({ ...own(), Origin: "null" })],
  ["no origin", () => ({ Cookie: cookie })],
  ["another site", () => ({ ...own(), "Sec-Fetch-Site": "cross-site" })],
  ["another port of this site", () => ({ ...own(), "Sec-Fetch-Site": "same-site" })],
  ["a foreign name", () => ({ ...own(), Host: "example.org", Origin: "http://example.org" })],
];
for (const [what, headers] of refused) test(`refuses ${what}`, async () => {
  const before = reached.length;
  assert.equal((await ask("/kernel/api/sessions", { method: "POST", headers: headers() })).status, 403);
  assert.equal((await ask(channels, { headers: { ...upgrade, ...headers() } })).status, 403);
  assert.equal(reached.length, before);
});

test("refuses another machine, even one with the cookie", () => {
  for (const [remoteAddress, refuses] of /** @type {const} */ ([
    ["192.168.1.7", true], ["::ffff:10.0.0.2", true], ["fe80::1", true], ["127.0.0.1", false], ["::ffff:127.0.0.1", false],
  ])) {
    const request = /** @type {any} */ ({
      method: "GET", socket: { remoteAddress }, headers: { host: "localhost:1948", cookie },
    });
    assert.equal(kernels.refusal(request) !== null, refuses, remoteAddress);
    assert.equal(kernels.enter(request, kernels.newKey()) === null, refuses, remoteAddress);
  }
});

test("lets one browser in with a key, and nobody without", async () => {
  const key = kernels.newKey();
  assert.equal((await ask("/enter?key=wrong&deck=cnn.md")).status, 403);
  assert.equal((await ask("/enter")).status, 403);
  assert.equal((await ask(`/enter?key=${key}&deck=cnn.md`, { headers: { Host: "example.org" } })).status, 403);
  const entered = await ask(`/enter?key=${key}&deck=//example.org`);
  assert.equal(entered.headers.location, "/");
  assert.match(entered.headers["set-cookie"]?.[0] ?? "", /; Path=\/kernel\/; HttpOnly; SameSite=Strict$/);
  assert.equal((await ask(`/enter?key=${key}&deck=cnn.md`)).status, 403);
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

test("takes the address of another server, but no token in it", () => {
  assert.equal(parseAddress("http://localhost:8888").href, "http://localhost:8888/");
  assert.equal(parseAddress("https://hub.example.org/user/ada").href, "https://hub.example.org/user/ada/");
  for (const address of ["localhost:8888", "ftp://localhost/", "http://localhost:8888/?token=secret", "", "http://a:b@c/"])
    assert.throws(() => parseAddress(address), (error) => !/secret/.test(/** @type {Error} */ (error).message)
      && /give the server's address/.test(/** @type {Error} */ (error).message));
});
