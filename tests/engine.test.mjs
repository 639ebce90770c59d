/** The deck engine, on a small lecture of its own. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { deflateSync } from "node:zlib";
import { findBrowser } from "../slides/engine/browser.mjs";
import { readModule, slug } from "../slides/engine/module.mjs";
import preprocess from "../slides/engine/preprocess.mjs";
import { renderDeck } from "../slides/engine/render.mjs";
import { cellThatSaves, freshNotebook, moduleFiles, sourcePage } from "../slides/engine/source.mjs";

const repository = fileURLToPath(new URL("..", import.meta.url));
const root = mkdtempSync(path.join(tmpdir(), "engine-"));
after(() => rmSync(root, { recursive: true }));

// The small lecture -------------------------------------------------------------

/** @param {string} name @param {string | Buffer} content */
function write(name, content) {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
}

const net = write("code/net.py", `# %% [markdown]
# # TinyNet
#
# - **Paper**: Ada Lovelace, Grace Hopper, Alan Turing.
#   *Tiny Networks*. NeurIPS 2017. [arXiv:1701.00001](https://arxiv.org/abs/1701.00001)
# - **Idea**: small is
#   beautiful
# - **Demo**: it trains
# - **Time**: 1 s

# %%
import torch
from torch import nn
import blocks
from lab import cli

TEXT = """
# %% not a cell that anyone asks for
"""


# %%
@decorated
class Net(nn.Module):
    """A network.

    (B, D) -> (B, K)
    """

    def __init__(self, width=3):
        self.layer = nn.Linear(width, 2)
        # </textarea><script>alert("&lt;")</script> \`x\` <!--s-->

    @property
    def size(self):
        return 'café "ünï" 😀'


# after Net

# %%
async def forward(x):
    return x + 1


def plain(x):
    return x


def morphed(x):
    y = plain(x)

    return x


def tall():
${"    pass\n".repeat(20)}

def wide():
    return "${"w".repeat(60)}"


# %% Plain against residual!
if __name__ == "__main__":
    # why
    args = cli.begin(SETTINGS)

    for i in range(3):
        print(i)

# %% Not a demo
x = 1
`);
write("code/blocks.py", `# %% [markdown]
# # Blocks
#
# - **Paper**: A B, C D, E F, G H, I J. *Many*. ICML 2015. [doi:10.1000/ab.c](https://doi.org/10.1000/ab.c)

# %%
def block():
    pass
`);
write("code/two.py", `# %% [markdown]
# # Two papers
#
# - **Paper**: A B. *One*. ICML 2015. [x](https://example.org/one)
# - **Paper**: C D. *Two*. ICML 2016. [y](https://example.org/two)

# %%
def two():
    pass
`);
write("code/bare.py", "def bare():\n    pass\n");
write("code/bad_paper.py", "# %% [markdown]\n# # Bad\n#\n# - **Paper**: nobody\n\n# %%\ndef f():\n    pass\n");
write("code/lab/training.py", "def fit():\n    pass\n");
write("tests/test_parity.py", "import pytest\n\n\ndef test_identical(name):\n    pass\n\n\ndef helper():\n    pass\n");

const hash = readModule(net).hash;
const run = {
  seed: 0, data: "digits", samples: { train: 1400, test: 397 }, seconds: 43.1, hardware: "2 CPU cores (x86_64)", date: "2026-11-21",
};
write("static/results/net.json", JSON.stringify({
  facts: { hash, values: { parameters: 25557032, share: 0.98851, flops: 1823456789, shape: "3x3", negative: -2.5, networks: 7 } },
  settings: { hash, values: { "mnist.epochs": 5 } },
  demo: { ...run, hash, command: "python code/net.py", values: { error: 0.034 } },
  mnist: { ...run, hash: "older", command: "python code/net.py --data mnist", data: "mnist", values: { "test.accuracy": 0.989 } },
}));
write("static/results/blocks.json", JSON.stringify({
  facts: { hash: "older", values: { depth: 3 } }, settings: { hash: "older", values: { "mnist.epochs": 5 } },
}));
write("static/results/two.json", "{");
write("papers/noether1918.json", JSON.stringify({
  citation: "Noether, 1918",
  url: "https://example.org/noether?a&b",
  results: {
    top5_test: {
      value: 0.0667, what: "top-5 error", where: "table 2", data: "ILSVRC-2014", split: "test", models: 7, crops: 144, verified: "not compared",
    },
    parameters: { value: 60e6, what: "parameters <all>", where: "section 3", verified: "equal to a test" },
    gain: { value: 0.014, what: "top-1 error", where: "section 4", models: 1, crops: "dense", verified: "not compared" },
  },
}));
write("papers/bare.json", JSON.stringify({ citation: "Bare", url: "https://example.org", results: { x: { value: 1 } } }));

/** @param {string} name @param {object} provenance @param {boolean} [dark] @param {number} [width] */
function figure(name, provenance, dark = true, width = 756) {
  const description = JSON.stringify({ module: "net", run: "demo", hash, command: "python code/net.py", ...provenance })
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}"><metadata><dc:description>${description}</dc:description></metadata></svg>`;
  write(`static/img/${name}.svg`, svg);
  if (dark) write(`static/img/${name}.dark.svg`, svg);
}
figure("fresh", { command: "python code/net.py --title 'a < b & c'" });
figure("old", { hash: "older" });
figure("old-mnist", { hash: "older", run: "mnist", command: "python code/net.py --data mnist" });
figure("no-dark", {}, false);
figure("wide", {}, true, 1168);
figure("foreign", { module: "nobody" });
write("static/img/no-provenance.svg", "<svg/>");
write("static/img/damaged.png", Buffer.from([0x89, 0x50, 0x4e, 0x47, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
write("static/img/picture.png", png({ module: "net", run: "demo", hash, command: "python code/net.py" }));

/** @param {object} provenance */
function png(provenance) {
  const chunk = (/** @type {string} */ type, /** @type {Buffer} */ data) => {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(data.length);
    head.write(type, 4, "latin1");
    return Buffer.concat([head, data, Buffer.alloc(4)]);
  };
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    chunk("IHDR", Buffer.alloc(13)),
    chunk("tEXt", Buffer.from("Software\0Matplotlib")),
    chunk("tEXt", Buffer.from(`Description\0${JSON.stringify(provenance)}`)),
    chunk("IDAT", deflateSync(Buffer.alloc(4))),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

const front = "---\ntitle: Tiny networks\nfamily: Tiny\ndate: 2026-11-21\n---\n";
const start = `${front}\n# Tiny networks\n\n`;
write("LICENSE.md", "MIT");
write("slides/other.md", `${start}<!--s-->\n\n## A slide\n`);

/** @param {string} text */
function render(text, options = {}) {
  return renderDeck(text, { root, deck: "slides/tiny.md", ...options });
}

/** The second slide of a deck. @param {string} markdown */
function slide(markdown, options = {}) {
  const { html, references, problems } = render(`${start}<!--s-->\n\n${markdown}`, options);
  return { html: html.slice(html.indexOf("</section>") + "</section>\n".length), references, problems };
}

/** @param {string} markdown @returns {string} its one problem */
function problem(markdown) {
  const { html, problems } = slide(markdown);
  assert.equal(problems.length, 1, JSON.stringify(problems));
  assert.match(html, /class="error"/);
  return problems[0].message;
}

/** @param {string} markdown @returns {string} */
function good(markdown, options = {}) {
  const { html, problems } = slide(markdown, options);
  assert.deepEqual(problems, []);
  return html;
}

/** @param {string} html */
const textOf = (html) => html.replace(/<br>/g, "").replace(/<[^>]*>/g, "")
  .replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&amp;", "&");

/** @param {string} html @returns {string[]} */
const codeLines = (html) => [...html.matchAll(/<span class="line[^>]*>(.*?)<\/span>(?=<span class="line|<\/code>)/g)].map(([, line]) => textOf(line));

// ---------------------------------------------------------------------------------

describe("a module", () => {
  const module = readModule(net);

  test("its header", () => {
    assert.deepEqual(module.header, {
      name: "TinyNet",
      papers: [{
        authors: ["Ada Lovelace", "Grace Hopper", "Alan Turing"], title: "Tiny Networks", venue: "NeurIPS", year: "2017",
        id: "arXiv:1701.00001", url: "https://arxiv.org/abs/1701.00001",
      }],
      idea: "small is beautiful", demo: "it trains", time: "1 s", error: null,
    });
    assert.equal(readModule(path.join(root, "code/two.py")).header.papers.length, 2);
  });

  test("its definitions, with their decorators and without what follows", () => {
    const lines = (/** @type {string} */ name) => {
      const { firstLine, lastLine } = module.definitions.get(name) ?? assert.fail(name);
      return [module.lines[firstLine - 1], module.lines[lastLine - 1]].map((line) => line.trim());
    };
    assert.deepEqual(lines("Net"), ["@decorated", "return 'café \"ünï\" 😀'"]);
    assert.deepEqual(lines("Net.size"), ["@property", "return 'café \"ünï\" 😀'"]);
    assert.equal(lines("Net.__init__")[0], "def __init__(self, width=3):");
    assert.equal(lines("forward")[0], "async def forward(x):");
    assert.ok(!module.definitions.has("width"));
  });

  test("one definition, from its cell alone or, where that makes no sense alone, from all", () => {
    for (const [name, span] of module.definitions) assert.deepEqual(module.definition(name), span);
    const cut = readModule(write("code/cut.py",
      'def f():\n    return 1\n\n\nTEXT = """\n# %% no cell\ndef f(): text\n"""\n\n\ndef g():\n    return 2\n'));
    assert.deepEqual(cut.definition("f"), { firstLine: 1, lastLine: 2 });
    assert.deepEqual(cut.definition("g"), { firstLine: 11, lastLine: 12 });
    assert.equal(cut.definition("TEXT"), undefined);
  });

  test("its demo cells", () => {
    const cell = module.cells.get("plain-against-residual") ?? assert.fail();
    assert.equal(module.lines[cell.firstLine - 1], "    # why");
    assert.equal(module.lines[cell.lastLine - 1], "        print(i)");
    assert.ok(cell.isDemo);
    assert.ok(!module.cells.get("not-a-demo")?.isDemo);
    assert.equal(slug("What LeNet-5 gets wrong?"), "what-lenet-5-gets-wrong");
    assert.equal(slug("  Überblick: 1/√d "), "überblick-1-d");
  });

  test("its hash is of code, its own and of the modules that it imports", () => {
    const python = "import pathlib, sys; from lab import source; print(source.module_hash(pathlib.Path(sys.argv[1])))";
    const env = { ...process.env, PYTHONPATH: path.join(repository, "code") };
    assert.equal(execFileSync("python3", ["-c", python, net], { encoding: "utf8", env }).trim(), hash);
    const original = readFileSync(net, "utf8");
    const hashOf = (/** @type {string} */ text) => readModule(write("code/net.py", text)).hash;
    assert.equal(hashOf(original.replaceAll("\n", "  \r\n").replace("# after Net", "# other\n\n   # comment")), hash);
    assert.equal(hashOf(`"""Of the module."""\n${original.replaceAll(/^( *)(def .*:)\n/gm, '$1$2\n$1    """What\n it does."""\n')}`), hash);
    assert.notEqual(hashOf(original.replace("x + 1", "x + 2")), hash);
    assert.equal(hashOf(original), hash);
    const block = readFileSync(path.join(root, "code/blocks.py"), "utf8");
    write("code/blocks.py", block.replace("pass", "return 1"));
    assert.notEqual(readModule(net).hash, hash);
    write("code/blocks.py", block);
    assert.equal(readModule(net).hash, hash);
  });

  test("it is read again only when its file changes", () => {
    const file = write("code/again.py", "a = 1\n");
    const first = readModule(file);
    assert.equal(readModule(file), first);
    writeFileSync(file, "a = 2\n");
    utimesSync(file, new Date(), new Date(Date.now() + 2000));
    assert.equal(readModule(file).lines[0], "a = 2");
    rmSync(file);
  });
});

describe("code on a slide", () => {
  test("a definition, with the lines of its file and everything as written", () => {
    const { html, references } = slide("[forward](../code/net.py#forward)");
    const { firstLine = 0, lastLine = 0, ...reference } = references[0];
    assert.deepEqual(codeLines(html), ["async def forward(x):", "    return x + 1"]);
    assert.match(html, new RegExp(`data-line="${firstLine}">`));
    assert.match(html, new RegExp(`<span class="source">code/net.py:${firstLine}–${lastLine}</span>`));
    assert.match(html, new RegExp(`aria-label="code/net.py, lines ${firstLine} to ${lastLine}"`));
    assert.match(html, /<figure class="code" data-module="net" data-symbol="forward" data-source="code\/net.py">/);
    assert.match(html, /<div class="body wide" style="--columns:21;--rows:2"><div class="media">/);
    assert.match(html, /<span class="tok-keyword">async<\/span> <span class="tok-keyword">def<\/span> <span class="tok-definition">forward<\/span>/);
    assert.equal(reference.kind, "code");
    assert.equal(reference.run, false);
  });

  test("characters that HTML or Markdown could take for their own", () => {
    const html = good("[`<b>`](../code/net.py#Net)");
    assert.equal(codeLines(html)[9], '        # </textarea><script>alert("&lt;")</script> `x` <!--s-->');
    assert.doesNotMatch(html, /<script|<\/textarea|<!--/);
    assert.equal(codeLines(good("[size](../code/net.py#Net.size)"))[2], "    return 'café \"ünï\" 😀'");
  });

  test("what stands under a class or a guard is dedented, a docstring too", () => {
    assert.equal(codeLines(good("[x](../code/net.py#Net.__init__)"))[0], "def __init__(self, width=3):");
    const { html, references } = slide('[Demo](../code/net.py#plain-against-residual "run")');
    assert.deepEqual(codeLines(html), ["# why", "args = cli.begin(SETTINGS)", "", "for i in range(3):", "    print(i)"]);
    assert.match(html, /data-line="\d+"><br><\/span>/);
    assert.match(html, /<div class="runnable"><\/div>/);
    assert.equal(references[0].kind, "cell");
    assert.equal(references[0].run, true);
    assert.equal(references[0].code, "# why\nargs = cli.begin(SETTINGS)\n\nfor i in range(3):\n    print(i)");
  });

  test("the shapes that a forward computed when they were recorded", () => {
    const module = path.join(root, "code/net.py");
    const code = createHash("sha256").update("async def forward(x):\n    return x + 1").digest("hex");
    /** @param {object} recording */
    const shown = (recording, words = "") => {
      write("static/recorded/net.shapes.json", JSON.stringify(recording));
      return good(`[x](../code/net.py#forward)${words}`);
    };
    const fresh = { made: { hash: readModule(module).hash }, shapes: { forward: { code, lines: { 1: "(1, 2)" } } } };
    const html = shown(fresh);
    assert.match(html, /<span class="line" data-line="\d+" data-shape="\(1, 2\)"> {4}<span class="tok-keyword">return/);
    assert.match(html, /style="--columns:25;--rows:2"/);
    assert.equal([...html.matchAll(/data-shape/g)].length, 1);
    assert.doesNotMatch(shown({ ...fresh, made: { hash: "older" } }), /data-shape/);
    assert.doesNotMatch(shown({ ...fresh, shapes: { forward: { code: "older", lines: { 1: "(1, 2)" } } } }), /data-shape/);
    const long = { ...fresh, shapes: { forward: { code, lines: { 1: `(${"1".repeat(50)})` } } } };
    assert.match(shown(long), /data-shape/);
    assert.doesNotMatch(shown(long, "\n\nProse."), /data-shape/);
    rmSync(path.join(root, "static/recorded"), { recursive: true });
  });

  test("what a runnable snippet gave when it was recorded", () => {
    const { hash } = readModule(net);
    const snippets = { "plain-against-residual": { seconds: 3.2, outputs: [{ text: "<b> 1\n" }, { figure: "a" }] } };
    const made = { date: "2026-11-20", hardware: "2 CPU cores (x86_64)", versions: { torch: "2.15" } };
    for (const [of, words] of [[hash, "Recorded output · 2026"], ["older", "Recorded output of older code · 2026"]]) {
      write("static/recorded/net.json", JSON.stringify({ made: { ...made, hash: of }, snippets }));
      const { html } = slide('[Demo](../code/net.py#plain-against-residual "run")');
      assert.ok(html.includes(`<summary>${words}-11-20 · torch 2.15 · 3.2 s on 2 CPU cores</summary>`), html);
      assert.match(html, /<pre class="text">&lt;b&gt; 1\n<\/pre><figure><img class="light-only" src="static\/img\/a.svg"/);
    }
    assert.doesNotMatch(slide("[Demo](../code/net.py#plain-against-residual)").html, /Recorded/);
    rmSync(path.join(root, "static/recorded"), { recursive: true });
  });

  test("what is not there, or does not fit, says so", () => {
    assert.match(problem("[x](../code/net.py#Nets)"), /no definition or demo cell "Nets"; there is Net, /);
    assert.match(problem("[x](../code/nett.py#Net)"), /no file code\/nett.py; there is net.py/);
    assert.match(problem("[x](../code/net.py#not-a-demo)"), /no demo cell/);
    assert.match(problem("[x](../code/net.py#tall)"), /does not fit: show it method by method \(21 lines/);
    assert.match(problem("[x](../code/net.py#wide)\n\nProse."), /does not fit.*73 columns; a slide with prose takes 20 of 60/);
    good("[x](../code/net.py#wide)");
    assert.match(problem("[x](../code/bare.py#bare)"), /no header/);
    assert.match(problem("[x](../code/bad_paper.py#f)"), /AUTHORS/);
    assert.match(problem("[x](../code/lab/training.py#fit)"), /only modules/);
    assert.match(problem("[x](../../../etc/passwd)"), /outside/);
    assert.match(problem("| a |\n|---|\n| [x](../code/net.py#Net) |"), /table/);
    assert.match(problem('See [x](../code/net.py#Net "run")'), /paragraph of its own/);
    assert.match(good("See [the net](../code/net.py#Net)."), /<span class="source" title="code\/net.py, lines \d+ to \d+">the net<\/span>/);
  });

  test("steps through lines", () => {
    const html = good('[x](../code/net.py#Net "lines=1-2,4|3")');
    const first = readModule(net).definitions.get("Net")?.firstLine ?? 0;
    const steps = [...html.matchAll(/<span class="fragment step" data-lines="([^"]*)">/g)].map(([, lines]) => lines);
    assert.deepEqual(steps, [`${first}-${first + 1},${first + 3}`, `${first + 2}`]);
    assert.doesNotMatch(html, /line focus/);
    assert.deepEqual(slide('[x](../code/net.py#Net "lines=1-2,4|3")').references[0].lines, [[first, first + 1, first + 3], [first + 2]]);
  });

  test("one set of lines is in focus from the start", () => {
    const html = good('[x](../code/net.py#forward "lines=2")');
    assert.deepEqual([...html.matchAll(/class="line focus"/g)].length, 1);
    assert.doesNotMatch(html, /fragment/);
    assert.match(problem('[x](../code/net.py#forward "lines=9")'), /lines 1 to/);
    assert.match(problem('[x](../code/net.py#forward "lines=0-1")'), /lines 1 to/);
    assert.match(problem('[x](../code/net.py#forward "line=1")'), /"line=1" is not understood/);
  });

  test("morphs: equal lines keep their names", () => {
    const html = good('[a](../code/net.py#plain)\n\n<!--s-->\n\n[b](../code/net.py#morphed "morph")\n\n<!--s-->\n\n[c](../code/net.py#plain "morph")\n');
    const ids = html.split("</section>").slice(0, 3).map((part) => [...part.matchAll(/data-id="([^"]*)"/g)].map(([, id]) => id));
    assert.equal([...html.matchAll(/data-auto-animate="" data-auto-animate-id="morph-2"/g)].length, 3);
    assert.deepEqual(ids.map(({ length }) => length), [2, 4, 2]);
    assert.equal(ids[0][1], ids[1][3]);
    assert.equal(ids[1][3], ids[2][1]);
    for (const own of ids) assert.equal(new Set(own).size, own.length);
    assert.notEqual(ids[0][0], ids[1][0]);
    assert.match(problem('[b](../code/net.py#morphed "morph")'), /morph needs code/);
  });

  test("code that is written in the deck", () => {
    const written = '<div>&lt;</textarea>\n<!--s-->\n\n<!--v-->\n`x` $y$ [z](#q)';
    const html = good(`\`\`\`\n${written}\n\`\`\``);
    assert.deepEqual(codeLines(html), written.split("\n"));
    assert.match(good("```python\ndef f(): pass\n```"), /tok-definition/);
    assert.doesNotMatch(good("```bash\ndef f\n```"), /tok-|figcaption|data-line/);
    assert.match(problem(`\`\`\`\n${"x".repeat(77)}\n\`\`\``), /does not fit: shorten it/);
    assert.deepEqual(codeLines(good("- item\n\n  ```\n  <nested>\n  ```")), ["<nested>"]);
    assert.match(good("`<!--s-->` and `</section>`"), /<code>&lt;!--s--&gt;<\/code>/);
  });
});

describe("numbers and proofs", () => {
  const fact = (/** @type {string} */ text, /** @type {string} */ key) => `[${text}](../code/net.py#facts.${key})`;

  test("a fact, as its value rounded to what is shown", () => {
    for (const [text, key] of [
      ["25,557,032", "parameters"], ["25557032", "parameters"], ["25.6 M", "parameters"], ["25.56M", "parameters"], ["26 M parameters", "parameters"],
      ["25,557 k", "parameters"], ["98.9 %", "share"], ["98.85%", "share"], ["0.99", "share"], ["1.8 G multiply-adds", "flops"],
      ["3x3", "shape"], ["−2.5", "negative"], ["-2.5 dB", "negative"], ["25,557,032 parameters", "parameters"], ["25.6\u00a0M", "parameters"], ["**26 M**", "parameters"],
    ]) good(fact(text, key));
    assert.match(good(fact("25.6 M", "parameters")), /<p><span class="fact" title="computed by code\/net.py">25.6 M<\/span><\/p>/);
  });

  test("a count in words", () => {
    for (const text of ["seven", "Seven"]) good(fact(text, "networks"));
    assert.equal(problem(fact("six", "networks")), "the value is 7: write seven");
    assert.equal(problem(fact("twelve", "parameters")), "the value is 25557032: write 25557032");
  });

  test("a wrong number says what to write", () => {
    assert.equal(problem(fact("25.5 M", "parameters")), "the value is 25557032: write 25.6 M");
    assert.equal(problem(fact("25,557,033", "parameters")), "the value is 25557032: write 25,557,032");
    assert.equal(problem(fact("98.8 %", "share")), "the value is 0.98851: write 98.9 %");
    assert.equal(problem(fact("1.8 GFLOPs", "flops")), "the value is 1823456789: write 1,823,456,789.0");
    for (const text of ["about 25 M", "2,55,57,032", "many", "25.6.1 M"]) assert.match(problem(fact(text, "parameters")), /must begin with a number/);
    assert.match(problem(fact("5x5", "shape")), /the value is "3x3"/);
    assert.match(problem(fact("1", "parameter")), /no value "parameter"; there is parameters/);
    assert.match(problem("[3](../code/blocks.py#facts.depth)"), /older code: run python code\/blocks.py/);
    assert.match(problem("[3](../code/two.py#facts.depth)"), /damaged/);
    assert.match(problem("[3](../code/bad_paper.py#facts.depth)"), /AUTHORS/);
  });

  test("a record, whose long runs may be stale", () => {
    assert.match(good("[3.4 %](../static/results/net.json#demo.error)"), /<span class="record" title="measured by python code\/net.py in 43 s on 2 CPU cores \(x86_64\) \(2026-11-21\)">/);
    const { html, references } = slide("[98.9 %](../static/results/net.json#mnist.test.accuracy)");
    assert.match(html, /<span class="record stale" title="measured by older code of python code\/net.py --data mnist/);
    assert.equal(references[0].stale, true);
    assert.equal(references[0].key, "mnist.test.accuracy");
    good("[1,400](../static/results/net.json#demo.samples.train)");
    assert.match(problem("[1](../static/results/net.json#mnst.accuracy)"), /no "mnst"; there is mnist/);
    assert.match(problem("[1](../static/results/none.json#demo.x)"), /no file/);
  });

  test("a setting, as its module's Settings have it", () => {
    const { html, references } = slide("[5](../code/net.py#settings.mnist.epochs)");
    assert.match(html, /<span class="fact" title="set in code\/net.py">5<\/span>/);
    assert.deepEqual([references[0].kind, references[0].key], ["setting", "mnist.epochs"]);
    assert.equal(problem("[6](../code/net.py#settings.mnist.epochs)"), "the value is 5: write 5");
    assert.match(problem("[5](../code/net.py#settings.mnst.epochs)"), /no value "mnst.epochs"; there is mnist.epochs/);
    assert.match(problem("[5](../code/blocks.py#settings.mnist.epochs)"), /older code: run python code\/blocks.py/);
  });

  test("a paper's number, with its protocol where it is pointed at and once in the notes", () => {
    const html = good("[6.67 %](../papers/noether1918.json#top5_test)\n\nNote:\nSay: [6.7 %](../papers/noether1918.json#top5_test)");
    const protocol = "Noether, 1918, table 2: top-5 error, ILSVRC-2014, test, 7 models, 144 crops \\(not compared\\)";
    const link = `<a class="reported" href="https://example.org/noether\\?a&amp;b" title="${protocol}" target="_blank" rel="noopener">`;
    assert.match(html, new RegExp(`${link}6.67 %</a>.*Say: ${link}6.7 %</a>`, "s"));
    assert.match(html, new RegExp(`<p>Numbers</p><ul><li>6.67 %, 6.7 %: ${protocol}</li></ul></aside>`));
    assert.match(good("[60 million](../papers/noether1918.json#parameters)"), /<aside class="notes"><p>Numbers<\/p>.*parameters &lt;all&gt; \(equal/);
    assert.match(good("[1.4 points](../papers/noether1918.json#gain)"), /section 4: top-1 error, one model, dense \(/);
    assert.equal(problem("[6.6 %](../papers/noether1918.json#top5_test)"), "the value is 0.0667: write 6.7 %");
    assert.match(problem("[1 %](../papers/noether1918.json#top5_tst)"), /no result "top5_tst"; there is top5_test/);
    assert.match(problem("[1 %](../papers/noether1919.json#top5)"), /no file papers\/noether1919.json; there is noether1918.json/);
    assert.match(problem("[1](../papers/bare.json#x)"), /papers\/bare.json is damaged: it needs citation, url, and results with/);
  });

  test("a number in a title or an alternative text is its text, and checked", () => {
    const number = "[3.4 %](../static/results/net.json#demo.error)";
    const html = good(`## It errs on ${number}\n\n![two\nlines at ${number} and [6.67 %](../papers/noether1918.json#top5_test)](../static/img/fresh.svg)`);
    assert.match(html, / id="it-errs-on-34-"/);
    assert.match(html, /alt="two lines at 3.4 % and 6.67 %"/);
    assert.match(html, /<li>6.67 %: Noether/);
    const wrong = number.replace("3.4", "3.5");
    assert.match(problem(`![at ${wrong}](../static/img/fresh.svg)`), /write 3.4 %/);
    assert.match(problem(`## It errs on ${wrong}`), /write 3.4 %/);
    assert.equal(slide(`![two\nlines ${wrong}](../static/img/fresh.svg)`).problems[0].line, 12);
  });

  test("a proof", () => {
    const { html, references } = slide("[identical](../tests/test_parity.py#test_identical[a-b]) to it");
    assert.match(html, /<span class="proof" title="tests\/test_parity.py::test_identical\[a-b\]">identical<\/span> to it/);
    assert.equal(references[0].target, "tests/test_parity.py::test_identical[a-b]");
    assert.match(problem("[x](../tests/test_parity.py#test_identica[a])"), /no test test_identica; there is test_identical/);
    assert.match(problem("[x](../tests/test_parity.py#helper)"), /no test/);
    assert.match(problem("[x](../tests/test_none.py#test_x)"), /no file/);
  });
});

describe("figures and diagrams", () => {
  test("a figure in light and dark, and what made it", () => {
    const html = good('![Error <b> "falls"](../static/img/fresh.svg)', { assets: "/_assets/" });
    assert.match(html, /<img class="light-only" src="\/_assets\/static\/img\/fresh.svg" alt="Error &lt;b&gt; &quot;falls&quot;"/);
    assert.match(html, /<img class="dark-only" src="\/_assets\/static\/img\/fresh.dark.svg"/);
    assert.match(html, /<span class="command">python code\/net.py --title 'a &lt; b &amp; c' · 43 s on 2 CPU cores · 1,400 digits<\/span>/);
    assert.match(good("![x](../static/img/picture.png)"), /<figure class="figure"><img class="panel" src="static\/img\/picture.png"/);
    assert.match(good("![x](../static/img/old-mnist.svg)"), /<span class="command stale">python code\/net.py --data mnist · 43 s/);
    assert.match(good("- ![x](../static/img/picture.png) inline"), /<li><img/);
  });

  test("what is wrong with a figure", () => {
    assert.match(problem("![](../static/img/fresh.svg)"), /alternative text/);
    assert.match(problem("![x](../static/img/fres.svg)"), /no file static\/img\/fres.svg; there is fresh.svg/);
    assert.match(problem("![x](../static/img/old.svg)"), /older code: run python code\/net.py/);
    assert.match(problem("![x](../static/img/no-dark.svg)"), /no-dark.dark.svg is missing/);
    assert.match(problem("![x](../static/img/no-provenance.svg)"), /does not say what made it/);
    assert.match(problem("![x](../static/img/damaged.png)"), /does not say what made it/);
    assert.match(problem("![x](../static/img/foreign.svg)"), /no module code\/nobody.py/);
    assert.match(problem("![x](https://example.org/x.svg)"), /pictures are/);
    assert.match(problem('<img src="x">'), /write a picture as/);
    assert.match(problem("![x](../static/img/wide.svg)\n\nBeside it."), /1168 pixels wide.*room for 756.*size=figures.BESIDE/);
    good("![x](../static/img/wide.svg)");
  });

  test("a diagram", () => {
    assert.match(good("```mermaid\ngraph LR\n  A --> B</pre>\n```"), /<figure class="mermaid-figure"><pre class="mermaid">graph LR\n  A --&gt; B&lt;\/pre&gt;\n<\/pre><\/figure>/);
  });
});

describe("citations and links", () => {
  test("a citation's entry comes from a module's header or from its title", () => {
    const html = good([
      "[Lovelace et al., 2017](https://arxiv.org/pdf/1701.00001v2)", "[Many, 2015](https://doi.org/10.1000/AB.c)",
      '[Knuth, 1984a](https://example.org/tex?a=1&b=2 "Donald Knuth. *The <TeX>book*. 1984.")', "[Again, 2017](https://arxiv.org/abs/1701.00001)",
      "[A site](https://example.org)", "\n\n<!--s-->\n\n## References\n\n<!-- references -->",
    ].join("\n"));
    assert.match(html, /<a class="citation" href="https:\/\/arxiv.org\/pdf\/1701.00001v2">/);
    const items = [...html.matchAll(/<li>(.*?)<\/li>/g)].map(([, item]) => item);
    assert.deepEqual(items, [
      'A B, C D, E F, G H, I J. <em>Many</em>. ICML 2015. <a href="https://doi.org/10.1000/ab.c">doi:10.1000/ab.c</a>',
      'Ada Lovelace, Grace Hopper, Alan Turing. <em>Tiny Networks</em>. NeurIPS 2017. <a href="https://arxiv.org/abs/1701.00001">arXiv:1701.00001</a>',
      'Donald Knuth. <em>The &lt;TeX&gt;book</em>. 1984. <a href="https://example.org/tex?a=1&amp;b=2">example.org/tex?a=1&amp;b=2</a>',
    ]);
    assert.match(html, /<a href="https:\/\/example.org" target="_blank" rel="noopener">A site<\/a>/);
    assert.match(problem("[Nobody, 1999](https://example.org/paper)"), /full entry/);
  });

  test("many references go on several slides below each other, numbered on", () => {
    const citations = Array.from({ length: 23 }, (_, i) => `[N, ${1900 + i}](https://example.org/${i} "N. *T${i}*. ${1900 + i}.")`);
    const html = good(`${citations.join("\n")}\n\n<!--s-->\n\n## References\n\n<!-- references -->`);
    const pages = html.match(/<ol class="references".*?<\/ol>/g) ?? [];
    assert.deepEqual(pages.map((page) => page.match(/<li>/g)?.length), [10, 10, 3]);
    assert.deepEqual(pages.map((page) => /start="(\d+)"/.exec(page)?.[1]), ["1", "11", "21"]);
    assert.equal(html.match(/ id="references"/g)?.length, 1);
  });

  test("links to decks, slides and files", () => {
    const linkDeck = (/** @type {string} */ name) => name.replace(".md", ".html");
    assert.match(good("[o](other.md)", { linkDeck }), /<a href="other.html">/);
    assert.match(good("[o](other.md#a-slide)"), /<a href="other.md#\/a-slide">/);
    assert.match(good("## Own one\n\n[o](#own-one)"), /<a href="#\/own-one">/);
    assert.match(problem("[o](others.md)"), /there is no file slides\/others.md; there is other.md/);
    assert.match(problem("[o](other.md#b-slide)"), /no slide "b-slide"; there is a-slide/);
    assert.match(problem("[o](#nowhere)"), /no slide/);
    assert.match(good("[f](../static/results/net.json)"), /<a href="static\/results\/net.json">/);
    assert.match(good("[f](../code/net.py)"), /<span class="source" title="code\/net.py">/);
    assert.match(problem("[f](../missing.txt)"), /no file/);
    assert.match(problem("[f](ftp://example.org)"), /https/);
  });
});

describe("math", () => {
  for (const command of ["\\href{javascript:alert(1)}{x}", "\\href{https://a.example}{x}", "\\url{https://a.example}", "\\includegraphics{https://a.example/x.png}",
    "\\htmlClass{a}{x}", "\\htmlId{a}{x}", "\\htmlStyle{color: red}{x}", "\\htmlData{a=b}{x}"])
    test(`makes no links, images or HTML: ${command}`, () => {
      assert.match(problem(`$${command}$`), /^\\\w+ is not available in formulas/);
    });

  test("is bounded", () => {
    assert.match(problem("$\\def\\a{\\b\\b}\\def\\b{\\c\\c}\\def\\c{\\a}\\a$"), /Too many expansions/);
    assert.doesNotMatch(good("$\\rule{9999em}{9999em}$"), /(width|height)(:|=")[1-9]\d{3}em/);
    good("$\\gdef\\mine{1}$");
    assert.match(problem("$\\mine$"), /Undefined control sequence/);
  });

  test("in lines, blocks and matrices", () => {
    const html = good("A $\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}$ and\n\n$$\n\\begin{aligned} x &= 1 \\\\ y &= 2 \\end{aligned}\n$$\n");
    assert.equal([...html.matchAll(/class="katex"/g)].length, 2);
    assert.equal([...html.matchAll(/<mtr>/g)].length, 4);
    assert.equal([...html.matchAll(/class="katex-display"/g)].length, 1);
  });

  test("dollars that are no math", () => {
    assert.doesNotMatch(good("It costs $5 or $6, `$x$`, \\$y\\$.\n\n```\n$z$\n```"), /katex/);
  });

  test("an error, with its line", () => {
    const { problems } = slide("Fine $x$,\nbut $\\frac{1$ here.");
    assert.equal(problems[0].line, 12);
    assert.match(problems[0].message, /KaTeX/);
    assert.match(problem("$$\n\\nonsense\n$$"), /nonsense/);
  });
});

describe("a slide", () => {
  test("its layout follows its content", () => {
    const code = "[x](../code/net.py#plain)";
    const picture = "![x](../static/img/fresh.svg)";
    assert.match(good("## T\n\nText"), /<h2>T<\/h2>\n<div class="body flow"><p>Text<\/p>\n<\/div>/);
    assert.match(good(`## T\n\n${code}`), /<div class="body wide" style="--columns:13;--rows:2"><div class="media"><figure/);
    assert.match(good(`${code}\n\n${picture}`), /<div class="body above" style="[^"]*"><div class="media"><figure class="code".*<figure class="figure"/);
    assert.match(good(`${code}\n${picture}`), /<div class="body above" /);
    const tall = `\`\`\`\n${"x\n".repeat(12)}\`\`\``;
    assert.match(good(`${code}\n\n${picture}\n\nText`), /<div class="body beside above".*<div class="media"><figure class="code".*<figure class="figure".*<div class="prose"><p>Text/);
    assert.match(good(`${tall}\n\n${picture}\n\nText`), /<div class="body beside drawn" .*<figure class="code".*<div class="prose"><p>Text<\/p>\n<figure class="figure"/s);
    assert.match(good(`${tall}\n\n${picture}`), /<div class="body beside drawn" .*<div class="prose"><figure class="figure"/s);
    assert.match(good(`${code}\n${code}`), /<div class="body wide pair" style="--columns:13;--rows:2">/);
    assert.match(good(`${code}\n${code}\n\nText`), /<div class="body beside" style="--columns:13;--rows:4">/);
    assert.match(good(`${picture}\n${picture}`), /<div class="body wide pair"><div class="media"><figure/);
    assert.match(good(`Before\n\n${code}\n\n- after`), /<div class="body beside" style="[^"]*"><div class="media"><figure.*<\/figure><\/div><div class="prose"><p>Before<\/p>\n<ul>/);
    assert.match(good(`${picture}\n\n| a |\n|---|\n| 1 |`), /class="body beside".*<div class="prose"><table>/s);
    assert.match(good("| a |\n|---|\n| 1 |"), /class="body flow"><table>/);
    assert.match(good("```\nx\n```\n\nText"), /class="body beside"/);
    assert.equal(slide(`${code}\n\nText`).references[0].beside, true);
    assert.equal(slide(code).references[0].beside, false);
    assert.match(problem(`${code}\n\n${picture}\n\n${picture}`), /room for two/);
    assert.match(problem(`${tall.replace("x", "x".repeat(70))}\n\n${picture}`), /the place beside a figure takes 20 of 66/);
    assert.match(problem(`[x](../code/net.py#wide)\n\n${picture}\n\nText`), /the place above a figure takes 11 of 60/);
    assert.match(problem(`[x](../code/net.py#Net)\n\n${code}`), /half a slide takes 20 of 44/);
  });

  test("its kicker is the module that its section shows most, the first of equals", () => {
    const block = "[x](../code/blocks.py#block)";
    const { html: later } = slide(`[x](../code/net.py#plain)\n\n<!--v-->\n\n${block}\n\n<!--v-->\n\n${block}`);
    assert.equal(later.match(/Blocks<\/span>/g)?.length, 3);
    const { html } = slide("## Text\n\n<!--v-->\n\n[x](../code/net.py#plain)\n\n<!--v-->\n\n[x](../code/blocks.py#block)\n\n<!--s-->\n\nElse\n\n<!--s-->\n\n[x](../code/blocks.py#block)\n\n<!--s-->\n\n[x](../code/two.py#two)");
    const kickers = [...html.matchAll(/<header class="kicker">(.*?)<\/header>/g)].map(([, kicker]) => textOf(kicker.replace("</span><", "</span>|<")));
    const tiny = "TinyNet|Lovelace, Hopper, Turing · NeurIPS 2017";
    assert.deepEqual(kickers, [tiny, tiny, tiny, "Tiny networks", "Blocks|B et al. · ICML 2015", "Two papers"]);
  });

  test("its footer, and the title slide", () => {
    const { html } = render(`${start}By me\n`);
    assert.match(html, /^<section class="title" id="tiny-networks" data-family="Tiny" data-at="slides\/tiny.md:7">\n<header class="kicker"><span class="architecture">Deep Learning Architectures<\/span><span class="date">21 November 2026<\/span><\/header>\n<h1>Tiny networks<\/h1>\n<div class="body flow"><p>By me/);
    assert.match(html, /<footer class="made-by"><span class="course">Deep Learning Architectures · Tiny<\/span><\/footer>/);
  });

  test("vertical slides stand in a section of their own", () => {
    const shape = (/** @type {string} */ html) => html.replace(/<(\/?section)[^>]*>/g, "\0$1\0").split("\0").filter((part) => part.includes("section")).join(" ");
    assert.equal(shape(good("A\n\n<!--v-->\n\nB\n\n<!--s-->\n\nC\n\n<!--s-->\n")), "section section /section section /section /section section /section");
  });

  test("notes run to its end", () => {
    const html = good("Text\n\nNote: say **this**\nand that\n\n- a point\n\n[x](../code/net.py#plain)\n\n<!--s-->\n\nNext");
    assert.match(html, /<div class="body flow"><p>Text<\/p>\n<\/div>\n.*\n<aside class="notes"><p>say <strong>this<\/strong>\nand that<\/p>\n<ul>/);
    assert.match(html, /<span class="source"[^>]*>x<\/span>.*<\/aside>/s);
    assert.match(good("Note:\n\nLater"), /<aside class="notes"><p><\/p>\n<p>Later<\/p>/);
    for (const before of ["Text", "- item", "| a |\n|---|\n| 1 |"])
      assert.match(problem(`${before}\nNote: hidden`), /"Note:" needs an empty line before it/);
    good("```\nNote: code\n```");
  });

  test("a slide has its time and its plan", () => {
    assert.match(good('<!-- .slide: data-plan="80" -->\n\n## T\n\nNote: Say it.\n\nTime: 1.5 minutes. More.'),
      /<section class="content" data-plan="80" id="t" data-family="Tiny" data-timing="90"/);
    assert.doesNotMatch(good("## T\n\nNote: Time: a while."), /data-timing/);
    for (const plan of ["60", "45", ""])
      assert.match(problem(`<!-- .slide: data-plan="${plan}" -->\n\n## T`), /data-plan="\d*" is no plan: write "80"/);
  });

  test("comments give attributes, or disappear", () => {
    assert.match(good('<!-- .slide: class="dark" data-state="x&y" -->\n\n## T'), /<section class="content dark" data-state="x&amp;y" id="t" data-family="Tiny"/);
    assert.match(good('- a\n- **b** c <!-- .element: class="fragment" -->'), /<li class="fragment"><strong>b<\/strong> c/);
    assert.match(good('Text **b**<!-- .element: class="fragment" --> more'), /<p>Text <strong class="fragment">b<\/strong> more/);
    assert.match(good('Text\n\n<!-- .element: class="fragment" data-fragment-index="2" -->'), /<p class="fragment" data-fragment-index="2">/);
    assert.match(good('![x](../static/img/fresh.svg) <!-- .element: class="fragment" -->'), /<figure class="figure fragment">/);
    assert.match(good('[x](../code/net.py#plain)\n\n<!-- .element: class="fragment" -->'), /<figure class="code fragment"/);
    assert.match(good('| a |\n|---|\n| 1 <!-- .element: class="fragment" --> |'), /<td class="fragment">1/);
    assert.match(good('[25.6 M](../code/net.py#facts.parameters)<!-- .element: class="fragment" -->'), /<span class="fact fragment"/);
    assert.doesNotMatch(good("A <!-- todo --> b\n\n<!-- more\nlines -->"), /todo|more/);
    assert.match(problem("<!-- .slide: nonsense=\" -->"), /not understood/);
  });

  test("HTML that could break it is an error", () => {
    good("H<sub>2</sub>O<br>\n\n<div class=\"x\">\n\n**b**\n\n</div>\n\n2 < 3 and a<b");
    assert.match(problem("a List<int> here"), /<int> is not HTML/);
    assert.match(problem("<script>alert(1)</script>"), /^<script> is not HTML/);
    assert.match(problem("</textarea>"), /^<\/textarea> is not HTML/);
  });

  test("its HTML must be closed, its separator alone", () => {
    assert.match(problem("<div>\n\ntext"), /<div> is not closed/);
    assert.match(problem("text\n\n</div>"), /closes what is not open/);
    assert.match(problem("<div>\n</div>\n<!--s-->\n\ntext"), /must stand alone/);
    assert.match(problem("text <!--s--> text"), /must stand alone/);
    assert.match(problem("<!-- never closed\n\ntext"), /comment is not closed/);
    assert.match(problem('<a href="x">y</a>'), /write a link as/);
  });

  const run = "top.taken = true";
  for (const html of [
    `<span onmouseover="${run}">a</span>`, `<span ONMOUSEOVER=${run.replaceAll(" ", "")}>a</span>`, `<b\nonclick\n=\n'${run}'>a</b>`,
    `<div title="x" onclick="${run}">\n\na\n\n</div>`, `<details open ontoggle="${run}"><summary>a</summary></details>`,
    `<div a=b"><img src=x onerror="${run}">">\na\n</div>`, `<div title='"'><div title="'onclick='">${"</div>".repeat(2)}<p/onclick=${run}>`,
    `<div title="a"onclick="${run}">\na\n</div>`, `<b/onclick="${run}">a</b>`, `<div/onclick="${run}">\na\n</div>`, `<div\fonclick="${run}">\na\n</div>`,
    `<<b>img src=x onerror="${run}">`, `<div>\n<<!-- x -->img src=x onerror="${run}">\n</div>`, `<div>\n<!--> <img src=x onerror="${run}"> -->x<img src=x>\n</div>`,
    `<div style="background: url(x)" style="color: red">\na\n</div>`, `<b style="background: URL(x)">a</b>`, `<b style="background: &#117;rl(x)">a</b>`,
    `<b style="background: u\\72l(x)">a</b>`, `<b style="background: image-set('x' 1x)">a</b>`, `<b style="width: expression(${run})">a</b>`,
    `<q cite="javascript:${run}">a</q>`, `<table background="x"><tr><td>a</td></tr></table>`, `<p is="x-a" contenteditable>a</p>`, `<p srcdoc="x">a</p>`,
    `<svg onload="${run}"></svg>`, `<math href="javascript:${run}"></math>`, `<iframe src="javascript:${run}"></iframe>`, `<object data="x"></object>`,
    ...["onclick", "data-background-iframe", "data-background-video", "data-background-image", "data-background", "data-preview-link", "srcdoc",
      "data-preview-image", "data-src", "src", "href", "data-notes", "data-markdown", "formaction", "xlink:href", "data-module", "OnClick"]
      .flatMap((name) => [`<!-- .slide: ${name}="javascript:${run}" -->\n\na`, `a <!-- .element: class="fragment" ${name}='x' -->`]),
    `<!-- .slide: style="background: url(x)" -->\n\na`, `a <!-- .element: style="--x: url(x)" -->`, `<!-- .slide: data-background-gradient="url(x)" -->\n\na`,
  ]) test(`HTML that could run or load something is an error: ${html}`, () => {
    const { html: shown, problems } = slide(html);
    assert.notDeepEqual(problems, []);
    assert.ok(problems.every(({ line }) => line >= 11), JSON.stringify(problems));
    assert.match(shown, /class="error"/);
    assert.doesNotMatch(shown, /<(?:img|svg|math|iframe|object|q)|<[^>]* (?:on\w+|style|src|data-(?:notes|src|background-\w+|preview-\w+))=/i);
  });

  test("HTML that gives a slide its look is none", () => {
    good('<div style="width: calc(100% - 2em); color: rgb(1 2 3 / 50%); transform: translate(0, (1 + 2) * 1px)" lang="de">\n\na\n\n</div>');
    good('<ol start="3" reversed><li value=2>a</li></ol>\n<table><tr><td colspan="2" aria-label="x > y">a</td></tr></table>');
    good('<details open><summary>a</summary>b</details>\n\na <!-- .element: style="font-size: 80%" -->');
    good('<!-- .slide: data-background-color="#123456" data-background-gradient="linear-gradient(to right, red, rgb(0 0 0))" -->\n\na');
  });

  for (const target of [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "&#106;avascript:alert(1)", "java&#9;script:alert(1)", "java&NewLine;script:alert(1)",
    "&#1;javascript:alert(1)", "javascript&colon;alert(1)", "< javascript:alert(1)>", "javascript:alert(1)#2016", "javascript:x.md",
    "data:text/html,x", "data:image/svg+xml,x", "DATA:text/html;base64,x", "vbscript:x", "file:///etc/passwd", "blob:x", "view-source:x",
    "//evil.example", "\\\\\\\\evil.example", "intent:x",
  ]) test(`a link that leads to no page is an error: ${target}`, () => {
    for (const link of [`[x](${target})`, `[x, 2016](${target} "A. *B*. 2016.")`, `![x](${target})`, `[x][1]\n\n[1]: ${target}`, `a\n\nNote: [x](${target})`]) {
      const { html, problems } = slide(link);
      assert.notDeepEqual(problems, [], link);
      assert.doesNotMatch(html, /<(a|img)[^>]* (href|src)=/, link);
    }
  });

  test("its heading", () => {
    assert.match(problem("# Title"), /only the first slide/);
    assert.match(problem("## A\n\ntext\n\n## B"), /second heading/);
    assert.match(good("## A `b` $x$ & <!-- c --> ü"), /id="a-b-x---ü"/);
    const ids = (/** @type {string[]} */ ...titles) =>
      [...good(titles.map((title) => `## ${title}`).join("\n\n<!--s-->\n\n")).matchAll(/<section[^>]* id="([^"]*)"/g)].map(([, id]) => id);
    assert.deepEqual(ids("Same", "Same", "2012"), ["same", "same-1", "slide-2012"]);
    assert.deepEqual(ids("S", "S", "S 1", "S-1", "S 1 1", "Tiny networks"), ["s", "s-1", "s-1-1", "s-1-2", "s-1-1-1", "tiny-networks-1"]);
    assert.deepEqual(ids("12", "Slide 12", 'A\n\n<!-- .slide: id="b" -->', "B"), ["slide-12", "slide-12-1", "b", "b-1"]);
    for (const id of ["3", "a b", "a/b", ""])
      assert.match(render(`${start}<!--s-->\n\n## A\n\n<!-- .slide: id="${id}" -->`).problems[0].message, /cannot stand in an address/);
    const twice = render(`${start}<!-- .slide: id="a" -->\n\n<!--s-->\n\n## A\n\n<!-- .slide: id="a" -->`).problems;
    assert.match(twice[0].message, /another slide has the id "a", too/);
  });
});

describe("a deck", () => {
  for (const [what, yaml] of Object.entries({
    "a function": "title: {toString: !!js/function 'function () { globalThis.taken = true; return \"x\" }'}",
    "a function that is called": "title: !!js/function 'function () {}'\nfamily: !!js/undefined ''",
    "a regular expression": "title: !!js/regexp /x/",
    "JSON": '{"title": {"toString": 1}}',
    "aliases of aliases": [..."abcdefghij"].map((name, i, all) => `${name}: &${name} [${Array(10).fill(i ? `*${all[i - 1]}` : "x")}]`).join("\n") + "\ntitle: *j",
    "a prototype": "__proto__: {family: x}\ntitle: x",
  })) test(`front matter is data: ${what}`, () => {
    const begin = performance.now();
    const { problems } = render(`---\n${yaml}\n---\n# A\n`);
    assert.match(problems[0].message, /front matter (is not valid YAML|lacks)/);
    assert.equal(/** @type {any} */ (globalThis).taken, undefined);
    assert.ok(performance.now() - begin < 2000);
  });

  test("front matter names no other template, preprocessor or file", async () => {
    const { deckRenderer } = await import("../slides/engine/decks.mjs");
    write("evil.html", "EVIL");
    write("evil.mjs", "export default () => 'EVIL'");
    write("reveal-md.json", readFileSync(path.join(repository, "reveal-md.json"), "utf8"));
    symlinkSync(path.join(repository, "slides/engine"), path.join(root, "slides/engine"));
    const options = "template: evil.html\npreprocessor: ./evil.mjs\nassets: '\"><script>EVIL</script>'\npolicy: EVIL\nlive: EVIL\nscripts: EVIL\nmarkdown: EVIL";
    write("slides/options.md", `---\ntitle: <Options>\nfamily: A\ndate: 2026\n${options}\n---\n# A\n`);
    const folder = process.cwd();
    try {
      const renderNamed = await deckRenderer(root);
      const html = await renderNamed("options.md");
      assert.match(html, /<title>&lt;Options&gt; ·/);
      assert.match(html, /<meta http-equiv="Content-Security-Policy" content="default-src 'self'; script-src 'self' 'sha256-/);
      assert.doesNotMatch(html, /EVIL|data-watch/);
    } finally {
      process.chdir(folder);
      rmSync(path.join(root, "slides/options.md"));
      rmSync(path.join(root, "slides/engine"));
    }
  });

  test("the lines of its errors are those of its file", () => {
    const text = `${start}Text\n\n<!--s-->\n\n- one\n- two [x](../code/none.py#X)\n\n| a | b |\n|---|---|\n| 1 | ![](../static/img/fresh.svg) |\n`;
    const lines = (/** @type {string} */ deck) => render(deck).problems.map(({ line }) => line);
    const wanted = ["[x]", "![](.."].map((part) => text.slice(0, text.indexOf(part)).split("\n").length);
    assert.deepEqual(lines(text), wanted);
    assert.deepEqual(lines(text.replaceAll("\n", "\r\n")), wanted);
    assert.deepEqual(lines(`\uFEFF${text}`), wanted);
    const { html } = render(text);
    assert.match(html, new RegExp(`<p>slides/tiny.md:${wanted[0]}</p><pre>\\[x\\]\\(\\.\\./code/none.py#X\\)\n`));
    assert.match(render(`${start}a\nb\nc [x](../code/none.py#X)`).html, /slides\/tiny.md:11/);
  });

  test("an error leaves the other slides, and its own address, as they were", () => {
    const { html } = render(`${start}<!--s-->\n\n## Bad\n\n[x](../code/none.py#<b>)\n\n<!--s-->\n\n## Good`);
    assert.match(html, /<section id="bad" class="error"><h2>This slide has an error<\/h2>.*&lt;b&gt;.*<section class="content" id="good" data-family="Tiny"/s);
  });

  test("its front matter", () => {
    const messages = (/** @type {string} */ text) => render(text).problems.map(({ message, line }) => `${line} ${message}`).join();
    assert.match(messages("# T"), /1 the front matter lacks title, family, date/);
    assert.match(messages("---\ntitle: T\n---\n# T"), /lacks family, date/);
    assert.match(messages("---\ntitle: [T\n---\n\n# T"), /^3 the front matter is not valid YAML/);
    assert.match(messages(`${front}Text`), /needs a title/);
    assert.match(messages(""), /needs a title/);
  });

  const settings = "title: T\nfamily: F\ndate: 2026-01-01\n";
  for (const [what, text] of Object.entries({
    "after empty lines": `\n \n---\n${settings}---\n\n# T`,
    "after a byte order mark, with spaces behind its marks": `\uFEFF---  \n${settings}---\t\n# T`,
    "closed by three dots": `---\n${settings}...\n# T`,
    "with the line ends of Windows": `---\n${settings}---\n# T`.replaceAll("\n", "\r\n"),
  })) test(`front matter is recognised ${what}`, () => {
    assert.deepEqual(render(text).problems, []);
    const bad = render(`${text}\n\n[x](nothing)`).problems.map(({ line }) => line);
    assert.deepEqual(bad, [text.split("\n").length + 2]);
  });

  for (const [what, text] of Object.entries({
    "of another tool": '+++\ntitle = "T"\n+++\n# T',
    "that is not closed": `---\n${settings}\n# T\n\n<!--s-->\n\n## B`,
    "without its marks": `${settings}\n# T`,
    "that is a line between slides": "---\n\n# T\n\n---\n\n## B",
    "without anything in it": "---\n---\n# T",
  })) test(`front matter ${what} is one error`, () => {
    const { problems } = render(text);
    assert.deepEqual(problems.map(({ line }) => line), [1]);
    assert.match(problems[0].message, /^the front matter is not recognised: begin the file with a line ---, then title:/);
  });

  test("a note that a reader would see", () => {
    for (const text of ["Text\nNote: x", "- a\nNote: x", "> a\nNote: x", "|a|b|\n|-|-|\n|1|2|\nNote: x", "<div>\nNote: x\n</div>"])
      assert.match(render(start + text).problems[0].message, /"Note:" needs an empty line/, text);
    for (const text of ["<!--\nTODO\nNote: x\n-->", "Text <!-- a\nNote: b --> c", "```\nNote: x\n```", "a\n\nNote : x", "a\n\nNote\uFF1Ax"])
      assert.deepEqual(render(start + text).problems, [], text);
    assert.match(render(`${start}a\n\nNote : bonjour`).html, /<aside class="notes"><p>bonjour<\/p>/);
  });

  test("never throws", () => {
    const pieces = [
      "---", "<!--s-->", "<!--v-->", "Note:", "$$", "$", "```", "```mermaid", "<div>", "</", "<!--", "-->", "[x](", "](../code/net.py#Net", ")", "![", "|", "# ", "## ",
      "<!-- .slide:", "<!-- .element: class=x -->", "\\frac{", "\0", "\u2028", "😀", "\r", "\n", "\n\n", "- ", "> ", "../static/results/net.json#constructor.x", "<!-- references -->",
      '"lines=1-3|', "#%E0%A4%A", "[a](../code/net.py#facts.__proto__)", "[1](../static/results/net.json#__proto__.x)", "[x](../tests)", "![x](../static/img/..)", "[y](../code/#x)",
    ];
    let seed = 1;
    const random = (/** @type {number} */ n) => (seed = (seed * 48271) % 2147483647) % n;
    for (let round = 0; round < 400; round++) {
      const text = Array.from({ length: 1 + random(30) }, () => pieces[random(pieces.length)]).join(random(2) ? "" : " ");
      const { html } = render(random(2) ? start + text : text);
      assert.equal(html.split("<section").length, html.split("</section>").length, JSON.stringify(text));
    }
  });

  test("of 60 slides takes at most 100 ms, and ten times as many at most twenty times as long", () => {
    const content = "## T\n\n[x](../code/net.py#Net.__init__)\n\nText with $x^2$ and [25.6 M](../code/net.py#facts.parameters).\n\n"
      + "<!--s-->\n\n## F\n\n![x](../static/img/fresh.svg)\n\n<!--s-->\n\n";
    const milliseconds = (/** @type {number} */ slides) => {
      const text = `${start}<!--s-->\n\n${content.repeat(slides / 2)}`;
      return Math.min(...Array.from({ length: 8 }, () => {
        const before = process.cpuUsage();
        assert.deepEqual(render(text).problems, []);
        const { user, system } = process.cpuUsage(before);
        return (user + system) / 1000;
      }));
    };
    const many = milliseconds(600);
    const few = milliseconds(60);
    assert.ok(few <= 100, `60 slides took ${few} ms`);
    assert.ok(many <= 20 * few + 50, `600 slides took ${many} ms, 60 took ${few} ms`);
  });
});

describe("what looks like Markdown", () => {
  const below = (/** @type {string} */ text) => `${start}<!--s-->\n\n## T\n\n${text}\n`;
  for (const text of [
    "![a](../static/img/my figure.svg)", "see [a](../code/my file.py)", "[a] (https://example.org)", "(a)[https://example.org]", "[a][b]", "[[Attention]]",
    "a claim [^1]", "[^1]: more", "##\u00A0A", "###A", "\uFF03 A", "\\(x\\)", "so \\[a = b\\] holds", "a $x_1 that", "$$\nx", "a $$x$$$$",
    "| a | b |\n| 1 | 2 |", "a\n| a | b |", "| `x | y` | 2 |\n|---|---|\n| 1 | 2 |", "| a | b |\n|---|---|\n| `x | y` | 2 |", "- [ ] do", "- [x] done", "• one\n• two", "-one\n-two",
    "```python\nx = 1", "~~~\nx", "- a\n\n  ```\n  x", "A title\n---", "A title\n===", "a\n\n---\n\nb", "::: warning\na\n:::", "==a mark==", "** bold **", "so **bold", "a &nbsp b", "x &rarr y",
    "<!-- slide: class=x -->", "<!-- .slides: class=x -->", "<!-- .slide class=x -->", "<!-- .Slide: class=x -->", "a <!-- element: class=x -->", "<!--S-->", "Notes - say this", "Speaker notes: say this", "1.one\n2.two", "*italic *", "It costs $5 and $10, or 3 $.", "5 $ or 6 $", "Speaker notes – say this",
  ]) test(`and is none is an error of its line: ${JSON.stringify(text)}`, () => {
    const { problems } = render(below(text));
    const first = below("").split("\n").length - 1;
    assert.equal(problems.length > 0, true);
    assert.ok(problems[0].line >= first && problems[0].line < first + text.split("\n").length, JSON.stringify(problems));
  });

  for (const text of [
    "It costs $5 and $10.", "C# and F#, #hashtag, #1", "An array `a[i][j]`, `[^1]`, `$x`, `\\(x\\)` and `| a |`", "He said [sic] and [1, 2] [3]", "a_b_c and snake_case_name",
    "2 ** 3 == 8, a == b == c", "\\*not bold\\*, \\[no link\\](x), \\# no heading, \\$5", "R&D, AT&T, Q&A and &amp;", "$HOME_DIR is set", "a | b, P(x | y)", "`f[x](y)` is no link", "\\[a\\](b), x\\(y\\), \\[1\\]", "a==b or c==d, f(*args, **kwargs)", "set $LAB_DATA and $PATH", "[0, 1][1, 2] and |x| and ||x||", "<https://example.org/?a=1&copy=2>", "<!-- slide: 3 is too long -->", "```cython\nx\n```",
    "| a | b |\n|---|---|\n| 1 |\n| `x \\| y` | 2 |", "```\n| a |\n$$ [^1] ##A\n---\n```", "~~~ python\nx = 1\n~~~", "- a\n\n  ```python\n  x = 1\n  ```", "a\n\n***\n\nb", "-5 and -3\n\n- a", "$x$, $a_{1}$ and $$y = x$$",
    "<!-- slides were checked -->", "<!-- TODO: element by element -->", "Notes are good", "1. a\n2. b", "a\n\nNote:\n\n- [ ] say ==this== [^1]", "a -- b --- c", "**bold** and *it*, __both__, ***all***",
  ]) test(`and is fine is none: ${JSON.stringify(text)}`, () => assert.deepEqual(render(below(text)).problems, []));

  test("a fence of Python is highlighted, however it is spelt, and steps through its lines", () => {
    for (const info of ["python", "Python", "python3", "py", "PY3", "ipython", "{.python}", "{python}", "pycon"])
      assert.match(render(below(`\`\`\`${info}\nx = 1  # y\n\`\`\``)).html, /tok-comment/, info);
    for (const info of ["python {1|2-3}", "python{1|2-3}", "python [1|2-3]", "py {1 | 2, 3}", "{1|2-3}"])
      assert.match(render(below(`\`\`\`${info}\nx = 1\ny = 2\nz = 3\n\`\`\``)).html, /data-lines="1".*data-lines="2-3"/s, info);
    assert.match(render(below("```text {2}\na\nb\n```")).html, /<span class="line focus" data-line="2">b<\/span>/);
  });

  for (const [info, message] of [
    ["pyhton", /do you mean python\?/], ["mermiad", /do you mean mermaid\?/], ["python {4}", /there are no lines 4/], ["python linenums=1", /"linenums=1" behind ``` is not understood/],
  ]) test(`a fence is not understood: ${info}`, () => {
    const { problems } = render(below(`\`\`\`${info}\nx = 1\n\`\`\``));
    assert.match(problems[0].message, /** @type {RegExp} */ (message));
  });
});

describe("a deck in a folder of slides/", () => {
  const renderBelow = (/** @type {string} */ text, deck = "slides/week1/intro.md") =>
    renderDeck(start + text, { root, deck, assets: "../", sources: true });

  test("has links that lead from its file, as on GitHub", () => {
    const { html, problems } = renderBelow("<!--s-->\n\n## A\n\n[x](../../code/net.py#Net.__init__)\n\n"
      + "<!--s-->\n\n## B\n\n![x](../../static/img/fresh.svg)\n\n"
      + "<!--s-->\n\n## C\n\n[o](../other.md#a-slide) [25.6 M](../../code/net.py#facts.parameters) [R](../../LICENSE.md)");
    assert.deepEqual(problems, []);
    for (const part of ['src="../static/img/fresh.svg"', 'href="../source/net.html#Net.__init__"', 'href="../other.md#/a-slide"'])
      assert.ok(html.includes(part), part);
  });

  test("has none that lead from another folder, or to a file that is no deck", () => {
    write("slides/TODO.md", "# To do");
    for (const [link, message] of [
      ["![x](../static/img/fresh.svg)", /pictures are ..\/..\/static\/img\/NAME/], ["[x](../code/net.py#Net)", /there is no file slides\/code\/net.py/],
      ["[x](other.md)", /there is no file slides\/week1\/other.md/], ["[x](../TODO.md)", /slides\/TODO.md is no deck: it has no front matter/],
    ]) assert.match(renderBelow(String(link)).problems[0].message, /** @type {RegExp} */ (message));
  });

  test("is linked by an address that can be one, whatever its name", () => {
    write("slides/week1/C# 100%?.md", start);
    assert.match(renderDeck(`${start}[x](<week1/C%23 100%25%3F.md>)`, { root, deck: "slides/tiny.md" }).html, /href="week1\/C%23%20100%25%3F.md"/);
  });
});

describe("reveal-md and the command line", () => {
  test("the preprocessor finds the deck by its contents, and its lines", async () => {
    const file = write("slides/bad.md", `${start}<!--s-->\n\n[x](../code/none.py#X)\n`);
    const options = { root };
    assert.match(await preprocess(readFileSync(file, "utf8").slice(front.length), options), /slides\/bad.md:11/);
    assert.equal(/** @type {any} */ (options).live, false);
    assert.match(await preprocess("", { root, deck: file, watch: true }), /slides\/bad.md:11/);
    assert.match(await preprocess("", { root, deck: path.join(root, "slides/none.md") }), /class="error".*cannot be shown/s);
    assert.match(await preprocess("# Elsewhere", { root }), /slides\/deck.md:1/);
    rmSync(file);
    const below = write("slides/week1/below.md", `${start}<!--s-->\n\n[x](../code/none.py#X)\n`);
    assert.match(await preprocess(readFileSync(below, "utf8").slice(front.length), { root }), /slides\/week1\/below.md:11/);
    rmSync(below);
  });

  test("the page, through reveal-md.json", () => {
    const file = write("slides/page.md", `${start}<!--s-->\n\n## {{title}}\n`);
    const script = `import { render } from "reveal-md/lib/render.js";
      import { readFileSync } from "node:fs";
      const text = readFileSync(${JSON.stringify(file)}, "utf8");
      const page = (options) => render(text, { root: ${JSON.stringify(root)}, ...options });
      console.log(JSON.stringify([await page({}), await page({ deck: ${JSON.stringify(file)}, assets: "", watch: true })]));`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { cwd: repository, encoding: "utf8" });
    assert.equal(stderr, "");
    const [plain, own] = JSON.parse(stdout);
    assert.match(plain, /<html lang="en">.*<title>Tiny networks · Deep Learning Architectures<\/title>.*href="\/_assets\/static\/theme.css".*<body data-assets="\/_assets\/">/s);
    assert.match(plain, /<h2>\{\{title\}\}<\/h2>/);
    assert.match(own, /<script type="module" src="static\/deck.js"><\/script>.*<body data-assets="" data-watch data-deck="slides&#x2F;page.md">/s);
    rmSync(file);
  });

  test("references.mjs lists references as JSON, or says what does not hold", () => {
    const deck = write("slides/list.md", `${start}<!--s-->\n\n$\\frac{$ [x](../code/none.py#X)\n`);
    const run = (/** @type {string[]} */ ...args) =>
      spawnSync(process.execPath, [path.join(repository, "slides/engine/references.mjs"), ...args], { encoding: "utf8" });
    const { stdout, status } = run("--json", deck);
    assert.equal(status, 0);
    const [link, math] = JSON.parse(stdout);
    assert.equal(link.kind, "code");
    assert.equal(link.ok, false);
    assert.equal(link.line, 11);
    assert.deepEqual([math.kind, math.line, math.ok], ["slide", 11, false]);
    const check = run(deck);
    assert.equal(check.status, 1);
    assert.match(check.stdout, /list.md:11: \[x\]\(..\/code\/none.py#X\): /);
    const missing = run("nowhere.md");
    assert.equal(missing.status, 2);
    assert.match(missing.stderr, /^There is no deck nowhere.md.\n$/);
    rmSync(deck);
  });
});

describe("the source of a module", () => {
  /** @param {object} lab what the notebook says of how it was made */
  const writeNotebook = (lab) => write("out/notebooks/net.ipynb", JSON.stringify({ metadata: { lab }, cells: [] }));
  const caption = (/** @type {string} */ html) => /<figcaption>(.*?)<\/figcaption>/.exec(html)?.[1] ?? "";

  test("every line stands there as it is, and every definition and demo cell has an address", () => {
    const html = sourcePage(root, "net", "/");
    const text = textOf(/<code>(.*)<\/code>/s.exec(html)?.[1].replaceAll('<span class="line"', '\n<span class="line"') ?? "");
    assert.equal(text.slice(1), readModule(net).source.trimEnd());
    const ids = [...html.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
    assert.deepEqual(ids, [
      "Net", "Net.__init__", "Net.size", "forward", "plain", "morphed", "tall", "wide", "plain-against-residual",
    ]);
    const first = readModule(net).definitions.get("Net.size")?.firstLine;
    assert.ok(html.includes(`<span id="Net.size"><span class="line" data-line="${first}">`));
    assert.equal(html.split("<span").length, html.split("</span>").length);
    assert.doesNotMatch(html, /<script>alert|ipynb/);
    assert.match(html, /<a href="net.py" download="">Download net.py<\/a>/);
    const modules = moduleFiles(root).map(({ file }) => file);
    assert.ok(modules.includes("code/net.py") && !modules.some((file) => /lab|training/.test(file)), `${modules}`);
  });

  test("code leads to its lines where there are such pages, and only there", () => {
    const html = caption(good("[x](../code/net.py#Net.size)", { sources: true }));
    assert.match(html, /^<span class="source"><a class="open" href="source\/net.html#Net.size" [^>]*aria-label="(code\/net.py:\d+–\d+), open at this line">\1<\/a><\/span>$/);
    assert.doesNotMatch(good("[x](../code/net.py#Net.size)"), /<a/);
  });

  test("a figure leads to the cell that saves it", () => {
    const file = write("code/saves.py", `if 1:\n    figures.save(f, "other")\n
# %% Draw it\nif __name__ == "__main__":\n    figures.save(f, "saves-it", format="png")\n`);
    assert.equal(cellThatSaves(readModule(file), "static/img/saves-it.png"), "draw-it");
    assert.equal(cellThatSaves(readModule(file), "static/img/saves.png"), undefined);
    rmSync(file);
  });

  test("a notebook is offered only if this code has made it, with default arguments", () => {
    const made = { hash: readModule(net).hash, arguments: "" };
    const offered = () => [
      freshNotebook(root, "net") !== null, sourcePage(root, "net", "/").includes("notebooks/net.ipynb"),
      good("[x](../code/net.py#Net)", { sources: true }).includes('href="notebooks/net.ipynb" download'),
    ];
    const none = [false, false, false];
    assert.deepEqual(offered(), none);
    const file = writeNotebook(made);
    assert.deepEqual(offered(), [true, true, true]);
    assert.doesNotMatch(good("[x](../code/net.py#Net)"), /ipynb/);
    for (const lab of [{ ...made, hash: "older" }, { ...made, arguments: "--quick" }, undefined]) {
      writeNotebook(/** @type {object} */ (lab));
      assert.deepEqual(offered(), none, JSON.stringify(lab));
    }
    writeFileSync(file, "{");
    assert.deepEqual(offered(), none);
    rmSync(file);
  });
});

describe("the browser that prints", () => {
  const find = (/** @type {string} */ platform, /** @type {NodeJS.ProcessEnv} */ env, /** @type {string} */ there) =>
    findBrowser({ platform, env, exists: (file) => file === there });

  test("is found where each system has it, or where a variable says", () => {
    const chrome = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";
    const edge = "C:\\Program Files (x86)\\Microsoft\\Edge\\Application\\msedge.exe";
    assert.equal(find("linux", { PATH: "/bin:/usr/bin" }, "/usr/bin/chromium"), "/usr/bin/chromium");
    assert.equal(find("darwin", { PATH: "/bin", HOME: "/Users/a" }, chrome), chrome);
    assert.equal(find("darwin", { HOME: "/Users/a" }, `/Users/a${chrome}`), `/Users/a${chrome}`);
    assert.equal(find("win32", { "PROGRAMFILES(X86)": "C:\\Program Files (x86)" }, edge), edge);
    assert.equal(find("win32", { Path: "C:\\a;D:\\b" }, "D:\\b\\chrome.exe"), "D:\\b\\chrome.exe");
    assert.equal(find("linux", { CHROME_PATH: "/my/chrome" }, "/my/chrome"), "/my/chrome");
    assert.equal(find("linux", { PUPPETEER_EXECUTABLE_PATH: "/my/chrome" }, "/my/chrome"), "/my/chrome");
  });

  test("one that is not there is one line that says what to do", () => {
    assert.throws(() => find("linux", { PATH: "/usr/bin" }, ""), /^Error: [^\n]*none was found: no Chrome, Chromium or Edge[^\n]*CHROME_PATH=FILE\.$/);
    assert.throws(() => find("linux", { PATH: "/usr/bin", CHROME_PATH: "/x" }, "/usr/bin/chromium"), /no browser \/x: CHROME_PATH/);
  });
});
