/** The server, on a small lecture of its own: what it serves, what it refuses, what it tells. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile, readFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { readModule } from "../slides/engine/module.mjs";
import { serve } from "../slides/engine/serve.mjs";
import { changes } from "../slides/engine/watch.mjs";

const secret = "not for the browser";
/** @type {string} */ let outside;
/** @type {string} */ let root;
/** @type {Awaited<ReturnType<typeof serve>>} */ let server;

before(async () => {
  outside = await mkdtemp(path.join(tmpdir(), "lectures-"));
  root = path.join(outside, "checkout");
  const files = {
    "secret.txt": secret,
    "../secret.txt": secret,
    "package.json": secret,
    "code/resnet.py": `# ${secret}`,
    "code/.hidden.py": secret,
    "code/lab/a.py": secret,
    "slides/cnn.md": "---\ntitle: Convolutions\nfamily: CNN\ndate: 2026\n---\n# A\n\n<!--s-->\n\n"
      + '<!-- .slide: data-plan="80" -->\n\n## B\n',
    "slides/broken.md": "---\ntitle: [\n---\n# A\n",
    "slides/week 1/C# 100%.md": "---\ntitle: Below\nfamily: CNN\ndate: 2026\n---\n# A\n",
    "slides/TODO.md": secret,
    "slides/README.md": secret,
    "slides/engine/notes.md": secret,
    "slides/.draft.md": secret,
    "slides/notes.txt": secret,
    "slides/engine/serve.mjs": secret,
    "static/theme.css": "body {}",
    "static/.hidden": secret,
    "static/img/a.svg": "<svg/>",
    "static/img/.hidden/a.svg": secret,
  };
  for (const [name, text] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(root, name)), { recursive: true });
    await writeFile(path.join(root, name), text);
  }
  await symlink(path.join(root, "secret.txt"), path.join(root, "static/escape.txt"));
  await symlink(root, path.join(root, "static/up"));
  await symlink(path.join(root, "secret.txt"), path.join(root, "code/escape.py"));
  await symlink(path.join(root, "secret.txt"), path.join(root, "slides/escape.md"));
  server = await serve({ root, renderDeck, port: 0 });
});

after(async () => {
  await server.close();
  await rm(outside, { recursive: true });
});

/** @type {import("../slides/engine/decks.mjs").RenderDeck} */
async function renderDeck(name) {
  const text = await readFile(path.join(root, "slides", name), "utf8");
  if (text.includes("title: [")) throw new Error("line 2: <unexpected> end");
  return `<p>${name}: ${text}</p>`;
}

/**
 * @param {string} target as it stands in the request, unlike with fetch
 * @param {http.RequestOptions} [options]
 * @returns {Promise<{status: number, headers: http.IncomingHttpHeaders, body: string}>}
 */
function ask(target, options = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: "127.0.0.1", port: server.port, path: target, ...options }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    request.on("error", reject).end();
  });
}

test("serves the index, the decks and static/", async () => {
  const index = await ask("/");
  assert.equal(index.status, 200);
  assert.match(index.body, /href="cnn\.md"[^]*CNN[^]*Convolutions[^]*2 slides/);
  assert.deepEqual(index.body.match(/\S+\.md\?minutes=\d+/g), ['href="cnn.md?minutes=45', 'href="cnn.md?minutes=80']);
  assert.match((await ask("/cnn.md")).body, /^<p>cnn\.md: /);
  assert.equal((await ask("/cnn.md?theme=dark")).status, 200);
  assert.match(index.body, /href="week%201\/C%23%20100%25\.md"/);
  assert.match((await ask("/week%201/C%23%20100%25.md")).body, /^<p>week 1\/C# 100%\.md: /);
  const figure = await ask("/static/img/a.svg");
  assert.equal(figure.body, "<svg/>");
  assert.equal(figure.headers["content-type"], "image/svg+xml");
  assert.equal((await ask("/static/theme.css", { method: "HEAD" })).status, 200);
});

test("serves the source of modules, and notebooks that these have made", async () => {
  const page = await ask("/source/resnet.html");
  assert.equal(page.status, 200);
  assert.match(page.body, new RegExp(`# ${secret}[^]*</pre>`));
  assert.match(page.body, /href="\/static\/theme.css"|href="\.\.\/static\/theme.css"/);
  assert.equal((await ask("/source/resnet.py")).body, `# ${secret}`);
  assert.equal((await ask("/notebooks/resnet.ipynb")).status, 404);
  const { hash } = readModule(path.join(root, "code/resnet.py"));
  for (const [made, status] of /** @type {const} */ ([[hash, 200], ["older", 404]])) {
    const file = path.join(root, "out/notebooks/resnet.ipynb");
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, JSON.stringify({ metadata: { lab: { hash: made, arguments: "" } } }));
    assert.equal((await ask("/notebooks/resnet.ipynb")).status, status);
  }
});

test("answers on both loopback addresses", async (context) => {
  const answer = await ask("/", { host: "::1", headers: { Host: "[::1]" } }).catch(() => null);
  if (!answer) return context.skip("this machine has no IPv6");
  assert.equal(answer.status, 200);
});

for (const target of [
  "/nothing", "/nothing.md", "/cnn", "/cnn.md/", "/slides/cnn.md", "/slides", "/static", "/static/", "/static/img",
  "/static/nothing.svg", "/static/.hidden", "/static/img/.hidden/a.svg", "/static/escape.txt", "/static/up/secret.txt",
  "/escape.md", "/.draft.md", "/notes.txt", "/package.json", "/secret.txt", "/code/resnet.py", "/engine/serve.mjs", "/engine/notes.md", "/README.md",
  "/source", "/source/", "/source/nothing.html", "/source/resnet", "/source/resnet.ipynb", "/source/resnet.py/", "/source/lab/a.py",
  "/source/..%2fsecret.html", "/source/../package.json", "/source/escape.py", "/source/.hidden.py", "/notebooks/resnet.py", "/notebooks/resnet.html",
  "/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/..%2fsecret.txt", "/static/..%2f..%2fsecret.txt",
  "/../slides/engine/serve.mjs", "//static/theme.css", "/static/theme.css/x", "/STATIC/theme.css", "/events/x",
]) test(`404: ${target}`, async () => {
  const { status, body } = await ask(target);
  assert.equal(status, 404);
  assert.doesNotMatch(body, new RegExp(secret));
});

test("a Markdown file that is no deck is not shown, and says why", async () => {
  const { status, body } = await ask("/TODO.md");
  assert.equal(status, 404);
  assert.match(body, /slides\/TODO.md is no deck: it has no front matter/);
  assert.doesNotMatch(body, new RegExp(secret));
  assert.doesNotMatch((await ask("/")).body, /TODO|README/);
});

for (const target of ["/%", "/%zz", "/%c3%28", "/static/%00", "/a%0d%0aSet-Cookie:b", "/static/..%5csecret.txt", "*", "http://evil.example/"])
  test(`400: ${target}`, async () => assert.equal((await ask(target)).status, 400));

for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
  test(`405: ${method}`, async () => {
    const { status, headers } = await ask("/cnn.md", { method });
    assert.equal(status, 405);
    assert.equal(headers.allow, "GET, HEAD");
  });

test("answers only to its own names", async () => {
  for (const name of ["localhost", "LOCALHOST:1948", "127.0.0.1", "[::1]", "[::1]:80"])
    assert.equal((await ask("/", { headers: { Host: name } })).status, 200, name);
  for (const name of ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil@localhost", "localhost:x", "[::1", "0.0.0.0", "::1"])
    assert.equal((await ask("/cnn.md", { headers: { Host: name } })).status, 403, name);
});

test("--host adds that name and its addresses, and for all interfaces the machine's", async () => {
  const other = await serve({ root, renderDeck, port: 0, host: "0.0.0.0" });
  try {
    assert.equal(other.url, `http://127.0.0.1:${other.port}`); // [::1] may be another user's
    for (const [name, status] of [["0.0.0.0", 200], ["127.0.0.1", 200], ["evil.example", 403]])
      assert.equal((await ask("/", { port: other.port, headers: { Host: name } })).status, status, String(name));
  } finally {
    await other.close();
  }
  await assert.rejects(serve({ root, renderDeck, port: 0, host: "192.0.2.1" }), /Cannot listen on 192\.0\.2\.1/);
});

test("every answer forbids sniffing, other hosts, framing by other sites and scripts outside of files", async () => {
  for (const target of ["/", "/cnn.md", "/broken.md", "/source/resnet.html", "/static/theme.css", "/static/img/a.svg", "/nothing", "/%"]) {
    const { headers } = await ask(target);
    const policy = String(headers["content-security-policy"]);
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.equal(headers["cross-origin-opener-policy"], "same-origin");
    assert.equal(headers["cross-origin-resource-policy"], "same-origin");
    assert.equal(headers["x-powered-by"], undefined);
    assert.match(policy, /default-src '(self|none)'.*frame-ancestors 'self'/);
    assert.doesNotMatch(policy, /script-src[^;]*'unsafe|http|\*/);
  }
});

test("a deck that cannot be rendered is a page that says why, and the rest goes on", async () => {
  const { status, body } = await ask("/broken.md");
  assert.equal(status, 500);
  assert.match(body, /slides\/broken\.md[^]*line 2: &#60;unexpected&#62; end/);
  const index = await ask("/");
  assert.match(index.body, /href="broken\.md"/);
  assert.equal((await ask("/cnn.md")).status, 200);
});

test("a port that is taken: the next free one", async () => {
  const second = await serve({ root, renderDeck, port: server.port });
  assert.ok(second.port > server.port);
  await second.close();
});

test("a port that is taken on one loopback address only is taken", async (context) => {
  const squatter = net.createServer();
  const listening = await new Promise((resolve) =>
    squatter.once("error", () => resolve(false)).listen(0, "::1", () => resolve(true)));
  if (!listening) return context.skip("this machine has no IPv6");
  const { port } = /** @type {net.AddressInfo} */ (squatter.address());
  const second = await serve({ root, renderDeck, port });
  assert.ok(second.port > port);
  await second.close();
  squatter.close();
});

// Changes -------------------------------------------------------------------

/**
 * What an open page hears of a change, until there is nothing more to hear.
 * @param {() => Promise<unknown>} change
 * @param {{patience?: number}} [options] milliseconds to wait for the first word
 */
async function newsOf(change, { patience = 5000 } = {}) {
  /** @type {unknown[]} */
  const news = [];
  /** @type {(value?: unknown) => void} */
  let heard;
  const first = new Promise((resolve) => (heard = resolve));
  const request = http.get({ host: "127.0.0.1", port: server.port, path: "/events" });
  await new Promise((resolve, reject) => {
    request.once("error", reject).once("response", (response) => {
      assert.equal(response.headers["content-type"], "text/event-stream; charset=utf-8");
      response.setEncoding("utf8").on("error", () => {}).on("data", (text) => {
        for (const [, data] of text.matchAll(/^data: (.*)$/gm)) heard(news.push(JSON.parse(data)));
        resolve(null);
      });
    });
  });
  await change();
  await Promise.race([first, sleep(patience)]);
  await sleep(400);
  request.destroy();
  return news;
}

/** @param {string} name @param {string} text */
const write = (name, text) => writeFile(path.join(root, name), text);

/** As lab.figures and many editors save. @param {string} name @param {string} text */
async function replace(name, text) {
  await write(`${name}.tmp`, text);
  await rename(path.join(root, `${name}.tmp`), path.join(root, name));
}

test("a changed figure is exchanged", async () => {
  const figure = [{ type: "figure", path: "static/img/a.svg" }];
  assert.deepEqual(await newsOf(() => replace("static/img/a.svg", "<svg></svg>")), figure);
  assert.deepEqual(await newsOf(() => write("static/img/a.svg", "<svg> </svg>")), figure);
});

test("a change is heard within a second", async () => {
  const seconds = [];
  for (const text of ["1", "2", "3"]) {
    let begin = 0;
    await newsOf(async () => {
      begin = performance.now();
      await replace("static/img/a.svg", text);
    });
    seconds.push((performance.now() - begin - 400) / 1000);
  }
  assert.ok(Math.min(...seconds) < 1, `${seconds}`);
});

test("a changed deck reloads itself, changed code all decks", async () => {
  assert.deepEqual(await newsOf(() => replace("slides/cnn.md", "---\ntitle: C\n---\n# A\n")), [{ type: "reload", decks: ["cnn.md"] }]);
  const all = [{ type: "reload", decks: ["broken.md", "cnn.md", "week 1/C# 100%.md"] }];
  assert.deepEqual(await newsOf(() => write("code/resnet.py", "x = 1\n")), all);
  assert.deepEqual(await newsOf(() => write("static/img/new.svg", "<svg/>")), all);
  assert.deepEqual(await newsOf(() => rm(path.join(root, "static/img/new.svg"))), all);
});

test("style is exchanged; what is hidden, unfinished or not watched is no news", async () => {
  assert.deepEqual(await newsOf(() => write("static/theme.css", "p {}")), [{ type: "style" }]);
  assert.deepEqual(await newsOf(async () => {
    await write("static/img/b.svg.tmp", "<svg/>");
    await write("slides/.cnn.md.swp", "x");
    await write("secret.txt", `${secret}!`);
    await write("code/gone.py", "");
    await rm(path.join(root, "code/gone.py"));
  }, { patience: 1000 }), []);
});

test("one address has some pages that hear of changes; the next is told so", { timeout: 20_000 }, async () => {
  /** @type {(request: http.ClientRequest) => Promise<number>} */
  const status = (request) => new Promise((resolve) => request.once("response", (response) => {
    response.on("error", () => {});
    resolve(response.statusCode ?? 0);
  }));
  const events = () => http.get({ host: "127.0.0.1", port: server.port, path: "/events" }).on("error", () => {});
  const pages = Array.from({ length: 32 }, events);
  assert.deepEqual(new Set(await Promise.all(pages.map(status))), new Set([200]));
  const refused = await ask("/events");
  assert.equal(refused.status, 503);
  assert.match(refused.body, /^Too many pages[^\n]*\n$/);
  assert.equal((await ask("/cnn.md")).status, 200);
  for (const page of pages) page.destroy();
  for (let open = false, i = 0; !open && i < 50; i++) {
    await sleep(20);
    const page = events();
    open = (await status(page)) === 200;
    page.destroy();
    if (i === 49) assert.ok(open);
  }
});

test("several changes are one reload", () => {
  const news = changes([
    { file: "slides/cnn.md", kind: "change" },
    { file: "code/resnet.py", kind: "change" },
    { file: "static/img/a.svg", kind: "change" },
    { file: "code/gone.py", kind: null },
  ], ["cnn.md", "gan.md"]);
  assert.deepEqual(news, [
    { type: "figure", path: "static/img/a.svg" },
    { type: "reload", decks: ["cnn.md", "gan.md"] },
  ]);
});

// Pages that are kept, files that are opened ------------------------------------

test("all who ask for a deck wait for one rendering, and a change makes another", async () => {
  let renderings = 0;
  let atATime = 0;
  const counting = await serve({ root, port: 0, renderDeck: async (name, options) => {
    renderings += 1;
    atATime += 1;
    assert.equal(atATime, 1);
    await sleep(100);
    const html = await renderDeck(name, options).finally(() => (atATime -= 1));
    return html;
  } });
  const asked = () => Promise.all(Array.from({ length: 25 }, () => ask("/kept.md", { port: counting.port })));
  const deck = (/** @type {string} */ title) => write("slides/kept.md", `---\ntitle: ${title}\n---\n# A\n`);
  try {
    await deck("One");
    assert.ok((await asked()).every(({ status, body }) => status === 200 && body.includes("title: One")));
    await asked();
    assert.equal(renderings, 1);
    const during = (await deck("Two"), ask("/kept.md", { port: counting.port }));
    await sleep(30);
    await deck("Six"); // while the deck is rendered
    assert.ok((await asked()).every(({ body }) => body.includes("title: Six")));
    assert.equal((await during).status, 200);
    for (const [file, text] of [["code/resnet.py", "y = 1"], ["static/img/a.svg", "<svg>1</svg>"], ["tests/test_a.py", ""], ["out/notebooks/new.ipynb", "{}"]]) {
      const before = renderings;
      await mkdir(path.dirname(path.join(root, file)), { recursive: true });
      await write(file, text);
      await asked();
      assert.equal(renderings, before + 1, file);
    }
    await deck("[");
    assert.ok((await asked()).every(({ status }) => status === 500));
    await deck("Well");
    assert.ok((await asked()).every(({ status }) => status === 200));
  } finally {
    await counting.close();
    await rm(path.join(root, "slides/kept.md"));
  }
});

test("what failed for a moment is tried again", async () => {
  let fails = true;
  const failing = await serve({ root, port: 0, renderDeck: async () => {
    if (fails) throw new Error("for a moment");
    return "well";
  } });
  assert.equal((await ask("/cnn.md", { port: failing.port })).status, 500);
  fails = false;
  assert.equal((await ask("/cnn.md", { port: failing.port })).body, "well");
  await failing.close();
});

for (const name of ["a.svg", "a.html", "a.xhtml", "a.xml", "a.svgz", "a.pdf", "a.htm", "a.js"])
  test(`a file that is opened by itself runs nothing: ${name}`, async () => {
    await write(`static/img/${name}`, "<svg/>");
    const { headers } = await ask(`/static/img/${name}`);
    assert.match(String(headers["content-security-policy"]), /^sandbox; default-src 'none'/);
  });

// Fuzz ----------------------------------------------------------------------

test("2,000 malformed requests leave it serving and learn nothing", { timeout: 60_000 }, async () => {
  const random = randomNumbers(1948);
  const statuses = new Map();
  for (let round = 0; round < 10; round++) {
    const answers = await Promise.all(Array.from({ length: 200 }, () => send(malformedRequest(random))));
    for (const answer of answers) {
      assert.ok(!answer.includes(secret) && !answer.startsWith("no answer"), answer);
      const status = /^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? "closed";
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
  }
  assert.equal((await ask("/cnn.md")).status, 200);
  const seen = JSON.stringify([...statuses]);
  assert.ok(!statuses.has("500") && !statuses.has("301"), seen);
  for (const status of ["200", "400", "403", "404", "405"]) assert.ok(statuses.get(status) > 50, seen);
});

/** mulberry32. @param {number} seed */
function randomNumbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** @param {() => number} random */
function malformedRequest(random) {
  const pick = (/** @type {string[]} */ choices) => choices[Math.floor(random() * choices.length)];
  const often = (/** @type {number} */ share, /** @type {string} */ usual, /** @type {string[]} */ choices) =>
    random() < share ? usual : pick(choices);
  const parts = [
    "static", "slides", "code", "cnn.md", "engine", "img", "secret.txt", "package.json", "etc/passwd", ".hidden", "escape.txt", "up",
    "..", ".", "", "%2e%2e", "..%2f", "%2f", "%5c..", "..\\", "%252e%252e", "%c0%ae%c0%ae", "%00", "%", "%u002e", "....//", "~", "C:", "::$DATA",
    "\xff", "a".repeat(300), "?", "#", ";", "%0d%0a", " ", "file:///", "{{7*7}}",
  ];
  const target = often(0.85, "/", ["", "//", "\\", "http://evil.example/", "*", "\0"])
    + Array.from({ length: Math.floor(random() * 6) }, () => pick(parts)).join(often(0.8, "/", ["", "%2f", "\\"]));
  const method = often(0.8, "GET", ["HEAD", "POST", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "G\0T", ""]);
  const version = often(0.9, "HTTP/1.1", ["HTTP/1.0", "HTTP/2.0", "HTTP/9", ""]);
  const host = often(0.75, "Host: localhost", ["Host: evil.example", "Host:", "Host: localhost\r\nHost: evil.example", "Host: [::1", "X: y"]);
  const header = often(0.5, "Accept: */*", [
    "Range: bytes=5-1", "Range: bytes=0-0,1-1,-9", "If-None-Match: *", "If-Modified-Since: never", "Transfer-Encoding: chunked, x",
    "Content-Length: -1", "Content-Length: 5\r\nTransfer-Encoding: chunked", "Expect: 100-continue", "Upgrade: websocket\r\nConnection: Upgrade",
    `X: ${"y".repeat(20_000)}`, "no colon", ": no name", "X: \0", "Cookie: \xff\xfe", "X-Forwarded-Host: evil.example",
  ]);
  const end = often(0.95, "\r\n\r\n", ["\n\n", "\r\n", "\r\n\r\n\r\nGARBAGE"]);
  return `${method} ${target} ${version}\r\n${host}\r\n${header}\r\nConnection: close${end}`;
}

/**
 * @param {string} request
 * @returns {Promise<string>} all that came back
 */
function send(request) {
  return new Promise((resolve) => {
    let answer = "";
    const unfinished = !/\n\r?\n/.test(request);
    const socket = net.connect(server.port, "127.0.0.1", () => {
      socket.write(Buffer.from(request, "latin1"));
      if (unfinished) socket.end();
    });
    socket.setTimeout(5000, () => socket.destroy(new Error("no answer")));
    socket.on("data", (chunk) => (answer += chunk.toString("latin1"))).on("close", () => resolve(answer));
    socket.on("error", (error) => {
      if (error.message === "no answer") answer = `no answer to ${JSON.stringify(request)}`;
    });
  });
}
