"""What the lectures cost in time and memory: npm run bench [-- PART ...].

Parts: models, attention, transformer, import, demos, preprocess, start, ready, build,
live, grading; without any, all. Medians are shown; what is compared runs in interleaved
pairs, so that whatever else the machine does hits both, and the median is that of the
pairs' ratios. An aim is met where the upper end of the bootstrap's 95 % interval meets
it.
"""
import os

# OpenMP threads that spin while they wait slow down whatever else is running.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import csv
import gzip
import importlib
import inspect
import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import torch
import torchvision

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "code"))

from declared import MODULES, references  # noqa: E402

# The table -------------------------------------------------------------------


def report(what, unit, values, aim=None):
    """Print a row: the median of values, its interval, and whether it meets the aim."""
    values = np.asarray(values)
    draws = np.random.default_rng(0).integers(len(values), size=(5000, len(values)))
    low, high = np.percentile(np.median(values[draws], axis=1), [2.5, 97.5])
    interval = f"{shown(low)} to {shown(high)}" if len(values) > 1 else ""
    met = f"<= {aim:<6g} {'yes' if high <= aim else 'NO'}" if aim else ""
    print(f"{what:<50} {shown(np.median(values)):>8} {unit:<4} {interval:>15}  "
          f"{met}".rstrip(), flush=True)


def shown(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def alternate(first, second, pairs):
    """What both return, called in turn, each first in every other pair."""
    first(), second()
    results = [[], []]
    for pair in range(pairs):
        for i in [0, 1] if pair % 2 else [1, 0]:
            results[i].append((first, second)[i]())
    return np.array(results)


def wall_time(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def run(*command, **options):
    """A program's output; its last line of errors ends the benchmark."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"bench: {' '.join(map(str, command))[:80]} failed: {last}")
    return done.stdout


def describe_machine():
    versions = {"Python": platform.python_version(), "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "Node": run("node", "-p", "process.versions.node").strip()}
    for name in ["reveal-md", "reveal.js"]:
        package = (ROOT / f"node_modules/{name}/package.json").read_text()
        versions[name] = json.loads(package)["version"]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{date.today()}, {platform.system()} {platform.machine()}, {os.cpu_count()} "
          f"CPUs, torch on {torch.get_num_threads()} threads{load}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"\n{'what':<50} {'measured':>8} {'':<4} {'95 % interval':>15}  "
          "aim       ok?")


# Code ------------------------------------------------------------------------


def models():
    """Ours over torchvision's, with the same weights and input."""
    for module, reference in references():
        if not reference.timed:
            continue
        ours, theirs = reference.ours(module), reference.theirs()
        ours.load_state_dict(theirs.state_dict())
        inputs = torch.randn(reference.timed, 3, reference.side, reference.side)
        for what, step, training, pairs in [
                ("forward", forward, False, 30),
                ("forward and backward", forward_and_backward, True, 20)]:
            ours.train(training), theirs.train(training)
            seconds = alternate(lambda: wall_time(step, ours, inputs),
                                lambda: wall_time(step, theirs, inputs), pairs)
            report(f"{reference.name} over torchvision's, {what}", "x",
                   seconds[0] / seconds[1], aim=1.05)


@torch.no_grad()
def forward(model, inputs):
    model(inputs)


def forward_and_backward(model, inputs):
    model.zero_grad()
    output = model(inputs)
    parts = output if isinstance(output, tuple) else (output,)  # auxiliary heads
    sum(part.sum() for part in parts).backward()


ATTENTION_MEMORY = """
import sys, torch
from torch.nn.functional import scaled_dot_product_attention
from lab.runs import peak_memory
from multi_head import scaled_dot_product

def attend(n):
    query, key, value = torch.randn(3, 2, 8, n, 64, requires_grad=True)
    if sys.argv[1] == "fused":
        output = scaled_dot_product_attention(query, key, value)
    else:
        output, _ = scaled_dot_product(query, key, value)
    output.sum().backward()

attend(8)
before = peak_memory()
attend(int(sys.argv[2]))
print(peak_memory() - before)
"""


def attention():
    """Ours over nn.MultiheadAttention with the same weights, and what weights cost."""
    from multi_head import MultiHeadAttention
    theirs = torch.nn.MultiheadAttention(512, 8, batch_first=True)
    ours, x = MultiHeadAttention(512, 8), torch.randn(8, 256, 512)
    ours.load_state_dict(theirs.state_dict())
    models = [lambda x: ours(x, x, x), lambda x: theirs(x, x, x, need_weights=False)[0]]
    for what, grad in [("forward", False), ("forward and backward", True)]:
        ours.train(grad), theirs.train(grad)

        def step(model):
            with torch.set_grad_enabled(grad):
                output = model(x).sum()
            if grad:
                output.backward()

        ours_seconds, their_seconds = alternate(
            *(lambda model=model: wall_time(step, model) for model in models), pairs=40)
        report(f"multi-head attention over torch's, {what}", "x",
               ours_seconds / their_seconds, aim=1.05)
    for n in [512, 2048]:
        fused, spelled_out = alternate(
            *(lambda way=way: int(run(sys.executable, "-c", ATTENTION_MEMORY, way,
                                      str(n), cwd=ROOT / "code"))
              for way in ["fused", "spelled out"]), pairs=3)
        report(f"attention, {n} places, peak memory, fused", "MiB", fused)
        report(f"attention, {n} places, peak memory, spelled out", "MiB", spelled_out)


def transformers():
    """Ours over nn.Transformer; decoding with kept keys and values over without."""
    from beam_search import greedy
    from test_transformer import Recomputed
    transformer = importlib.import_module("transformer")
    sizes = {"num_layers": 3, "dropout": 0.0}
    theirs = torch.nn.Transformer(512, 8, 3, 3, 2048, 0.0, batch_first=True)
    ours = transformer.Transformer(512, 8, d_ff=2048, **sizes)
    ours.load_state_dict(theirs.state_dict())
    source, target = torch.randn(8, 32, 512), torch.randn(8, 32, 512)
    allowed = torch.arange(32) < torch.arange(25, 33)[:, None]
    causal = torch.ones(32, 32, dtype=torch.bool).tril()

    def our_step(model=ours, masks=(allowed[:, None, None], causal)):
        model.zero_grad()
        model(source, target, *masks).sum().backward()

    def their_step(model=theirs):
        model.zero_grad()
        model(source, target, tgt_mask=~causal, src_key_padding_mask=~allowed,
              memory_key_padding_mask=~allowed).sum().backward()

    seconds = alternate(lambda: wall_time(our_step), lambda: wall_time(their_step), 20)
    report("Transformer over nn.Transformer, training step", "x",
           seconds[0] / seconds[1], aim=1.05)
    model = transformer.Translator(8000, d_model=256, num_heads=4, d_ff=1024, **sizes)
    model.eval()
    sentences = torch.randint(3, 8000, (8, 20))

    def decode(model):
        return wall_time(greedy, model, sentences, 40)

    seconds = alternate(lambda: decode(model), lambda: decode(Recomputed(model)), 7)
    tokens = greedy(model, sentences, 40).numel()
    report("greedy decoding with a cache, tokens", "/s", tokens / seconds[0])
    report("greedy decoding with a cache over without", "x", seconds[0] / seconds[1],
           aim=1)


def imports():
    for module in MODULES:
        ours, torch_alone = alternate(
            lambda: import_time(module), lambda: import_time("torch"), pairs=7)
        report(f"import {module} over import torch", "x", ours / torch_alone, aim=1.2)


def import_time(module):
    code = ("import time; start = time.perf_counter(); "
            f"import {module}; print(time.perf_counter() - start)")
    return float(run(sys.executable, "-c", code, cwd=ROOT / "code"))


def demos():
    """Each demo alone, then beside a process that keeps a core busy."""
    alone = []
    for module in MODULES:
        with tempfile.TemporaryDirectory() as out:
            demo = [sys.executable, ROOT / f"code/{module}.py", "--out", out]
            alone.append(wall_time(run, *demo))
            record = json.loads(Path(out, f"results/{module}.json").read_text())
            with busy():
                beside = wall_time(run, *demo)
        report(f"python code/{module}.py", "s", [alone[-1]], aim=40)
        report(f"python code/{module}.py beside a busy process", "×",
               [beside / alone[-1]], aim=2.2)
        report(f"python code/{module}.py, peak memory", "MiB",
               [record["demo"]["peak_memory_mib"]], aim=2048)
    report("the demos, median", "s", [np.median(alone)], aim=25)


@contextmanager
def busy():
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


# Decks -------------------------------------------------------------------------

SEPARATOR = "\n\n<!--s-->\n\n"
LINK = '[code](../code/layers.py#batch_norm "lines=7-8|9-13|14-16")'


def write_deck(file, count, fenced=False):
    """So many slides, those of bench.md; fenced code is what reveal-md shows too."""
    deck = (ROOT / "tests/bench.md").read_text()
    if fenced:
        layers = importlib.import_module("layers")
        source = inspect.getsource(layers.batch_norm)
        deck = deck.replace(LINK, f"```python\n{source}```")
    title, *slides = deck.strip().split(SEPARATOR)
    pages = [title, *islice(cycle(slides), count - 1)]
    file.write_text(SEPARATOR.join(pages) + "\n")


@contextmanager
def lectures():
    """A copy of the lectures without decks, for decks to measure with."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in ["code", "papers", "static", "slides/engine"]:
            shutil.copytree(ROOT / name, copy / name)
        for name in ["package.json", "package-lock.json", "reveal-md.json"]:
            shutil.copy(ROOT / name, copy)
        (copy / "node_modules").mkdir()
        for package in (ROOT / "node_modules").glob("[!.]*"):
            (copy / "node_modules" / package.name).symlink_to(package)
        yield copy


def preprocess():
    with lectures() as copy:
        write_deck(copy / "slides/short.md", 60)
        write_deck(copy / "slides/long.md", 600)
        command = ["node", ROOT / "tests/bench_preprocess.mjs"]
        runs = [json.loads(run(*command, cwd=copy)) for _ in range(5)]
    pairs = np.concatenate([run["pairs"] for run in runs])
    report("preprocess 60 slides, first in a process", "ms",
           [run["first"] for run in runs], aim=100)
    report("preprocess 60 slides", "ms", pairs[:, 0], aim=100)
    report("preprocess 600 slides", "ms", pairs[:, 1])
    report("preprocess 600 slides over 60", "x", pairs[:, 1] / pairs[:, 0], aim=12)


SERVE = """
import { deckRenderer } from "./slides/engine/decks.mjs";
import { serve } from "./slides/engine/serve.mjs";
const root = process.cwd();
const port = Number(process.argv[1]);
await serve({ root, port, renderDeck: await deckRenderer(root) });
"""
# Nothing outside is asked for: plain reveal-md would fetch MathJax.
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"]


def start_time(command, folder, deck):
    """Seconds until a server has answered with a deck."""
    start = time.perf_counter()
    with server([*command, "--port"], folder, deck):
        return time.perf_counter() - start


def start():
    """npm start when all is set up, over plain reveal-md, until a deck is served."""
    reveal_md = ["node", ROOT / "node_modules/reveal-md/bin/reveal-md.js", "bench.md",
                 "--disable-auto-open"]
    ours, theirs = alternate(
        lambda: start_time(["node", ROOT / "slides/engine/start.mjs", "--no-open"],
                           ROOT, "cnn.md"),
        lambda: start_time(reveal_md, ROOT / "tests", "bench.md"), pairs=5)
    report("npm start until a deck is served", "s", ours)
    report("npm start until a deck is served, over reveal-md", "x", ours / theirs)


def ready():
    """From navigation to Reveal's ready event, with an empty cache."""
    from playwright.sync_api import sync_playwright
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    reveal_md = ROOT / "node_modules/reveal-md/bin/reveal-md.js"
    with lectures() as copy, tempfile.TemporaryDirectory() as plain:
        write_deck(copy / "slides/deck.md", 60, fenced=True)
        shutil.copy(copy / "slides/deck.md", plain)
        shutil.copytree(copy / "static/img", Path(plain, "static/img"))
        with (server(["node", "--input-type=module", "-e", SERVE], copy) as ours_url,
              server(["node", reveal_md, "deck.md", "--disable-auto-open", "--port"],
                     plain) as their_url,
              sync_playwright() as playwright):
            browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
            ours, theirs = alternate(lambda: ready_time(browser, ours_url),
                                     lambda: ready_time(browser, their_url), pairs=15)
            browser.close()
    report("60 slides ready", "s", ours)
    report("60 slides ready, plain reveal-md", "s", theirs)
    report("60 slides ready, over plain reveal-md", "x", ours / theirs, aim=0.8)


def ready_time(browser, url, slides=60):
    page = browser.new_page()
    page.add_init_script("window.addEventListener('ready', "
                         "() => { window.readyAt ??= performance.now(); }, true)")
    page.goto(url, wait_until="commit")
    milliseconds = page.wait_for_function("() => window.readyAt").json_value()
    count = "Reveal.getSlides().filter((slide) => !slide.matches('.error')).length"
    if page.evaluate(count) != slides:
        sys.exit(f"bench: {url} does not show {slides} slides without error")
    page.close()
    return milliseconds / 1000


@contextmanager
def server(command, folder, deck="deck.md"):
    """The address of a deck's page; the server is given its port as last argument."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}/{deck}"
    process = subprocess.Popen(
        [*command, str(port)], cwd=folder, stdout=subprocess.DEVNULL,
        env={**os.environ, "NO_UPDATE_NOTIFIER": "1"})
    try:
        while not answers(url):
            if process.poll() is not None:
                sys.exit(f"bench: {command[1]} ended without serving {url}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url):
    with suppress(URLError):
        return urlopen(url).read()


def build():
    with lectures() as copy:
        for i in range(10):
            write_deck(copy / f"slides/deck{i}.md", 60)
        (copy / "npm-cli.js").touch()  # installs nothing: the packages are there
        environment = {**os.environ, "npm_execpath": str(copy / "npm-cli.js")}
        command = ["node", "slides/engine/build.mjs"]
        run(*command, cwd=copy, env=environment)
        seconds = [wall_time(lambda: run(*command, cwd=copy, env=environment))
                   for _ in range(5)]
        report("build 10 decks of 60 slides", "s", seconds, aim=10)


# Live code ---------------------------------------------------------------------

LIVE_DECK = """\
---
title: Live
family: CNN
date: 2026-11-21
---
# Live

<!--s-->

## A block to run

[grad_cam](../code/grad_cam.py#grad_cam "run")
"""
# A run of 1 + 1 from the click to its output, in ms
CLICK = """async () => {
    while (document.querySelector(".code.running"))
        await new Promise(requestAnimationFrame);
    const content = document.querySelector(".output .content");
    const seen = new Promise((resolve) => new MutationObserver(() => {
        if (content.textContent.trim() === "2") resolve(performance.now());
    }).observe(content, { childList: true, subtree: true }));
    const start = performance.now();
    document.querySelector(".tools .run").click();
    return (await seen) - start;
}"""


# Seconds of trainings of LeNet-5, with their curve drawn and without, in turn
TRAININGS = """
import json, time
import lenet
from lab import cli, live_output, training
args = cli.begin({"digits": lenet.Settings(epochs=3)})
seconds = [[], []]
for pair in range(10):
    for i in [0, 1] if pair % 2 else [1, 0]:
        training.watcher = None if i else live_output.Curve()
        start = time.perf_counter()
        lenet.trained(lenet.LeNet5, args, seed=2 * pair + i)
        seconds[i].append(time.perf_counter() - start)
print(json.dumps([times[2:] for times in seconds]))
"""


def live():
    from playwright.sync_api import sync_playwright
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with lectures() as copy, sync_playwright() as playwright:
        (copy / "slides/deck.md").write_text(LIVE_DECK)
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        server = subprocess.Popen(
            ["node", ROOT / "tests/live_server.mjs", sys.executable], cwd=copy,
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            measure_live(browser, server)
        finally:
            browser.close()
            server.terminate()
            server.wait()
    bundle = (ROOT / "static/lib/live.js").read_bytes()
    report("live code for the browser, compressed", "KB",
           [len(gzip.compress(bundle)) / 1000], aim=300)


def measure_live(browser, server):
    url = server.stdout.readline().strip()
    server.stdin.write("key\n")
    server.stdin.flush()
    key = server.stdout.readline().strip()
    let_in, other = browser.new_context(), browser.new_context()
    page = let_in.new_page()
    page.goto(f"{url}/enter#key={key}&deck=deck.md")
    page.wait_for_selector(".tools", state="attached")
    page.evaluate("Reveal.slide(1)")
    page.wait_for_timeout(10_000)
    page.locator(".code pre").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("1 + 1")
    report("first run, the deck open for 10 s", "ms", [page.evaluate(CLICK)], aim=300)
    with bare_call() as call:
        ours, bare = alternate(lambda: page.evaluate(CLICK), call, pairs=50)
        drawn, alone = json.loads(call.ask(TRAININGS))
    report("1 + 1, from click to output", "ms", ours)
    report("1 + 1, over jupyter_client", "ms", ours - bare, aim=50)
    report("training with its curve, over without", "x",
           np.array(drawn) / alone, aim=1.05)
    page.close()
    with_live, without = alternate(
        lambda: ready_time(let_in, f"{url}/deck.md", slides=2),
        lambda: ready_time(other, f"{url}/deck.md", slides=2), pairs=15)
    report("deck ready, later by live code", "ms", 1000 * (with_live - without),
           aim=150)


@contextmanager
def bare_call():
    """A function that runs 1 + 1 in a kernel by jupyter_client; returns the ms.

    Its ask(code) returns the last line that the code prints.
    """
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel(cwd=str(ROOT / "code"))
    client.execute_interactive("from lab import live", output_hook=lambda message: None)

    def call():
        start = time.perf_counter()
        shown = []

        def hook(message):
            if message["msg_type"] == "display_data":
                shown.append(time.perf_counter())

        client.execute_interactive("live.run('grad_cam', 'grad_cam', '1 + 1')",
                                   output_hook=hook)
        return 1000 * (shown[0] - start)

    def ask(code):
        printed = []

        def hook(message):
            if message["content"].get("name") == "stdout":
                printed.append(message["content"]["text"])

        reply = client.execute_interactive(code, output_hook=hook)
        if reply["content"]["status"] != "ok":
            sys.exit(f"bench: {reply['content']['evalue']}")
        return "".join(printed).strip().splitlines()[-1]

    call.ask = ask
    yield call
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def grading():
    """80 solved exercises and 20 attacks, in one go; nothing may be lost."""
    from hostile import EXERCISE, HOSTILE
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(ROOT / "code/lab", folder / "code/lab")
        exercises, submissions = folder / "code/exercises", folder / "submissions"
        exercises.mkdir()
        shutil.copy(ROOT / "code/exercises/convolution.py", exercises)
        (exercises / "toy.py").write_text(EXERCISE, "utf-8")
        wanted = {}
        for number in range(80):
            student = submissions / f"student{number}"
            student.mkdir(parents=True)
            shutil.copy(exercises / "convolution.py", student)
            wanted[student.name] = "16"   # the other two are a human's
        for name, (file, content, points) in list(HOSTILE.items())[:20]:
            (submissions / name).mkdir()
            (submissions / name / file).write_text(content, "utf-8")
            wanted[name] = f"{sum(points):g}"
        command = [sys.executable, folder / "code/lab/grade.py", submissions,
                   "--cell-seconds", "20"]
        for what in ["100 submissions, 20 of them attacks, graded", "the same again"]:
            start = time.perf_counter()
            run(*command, cwd=folder)
            report(what, "s", [time.perf_counter() - start])
        with (folder / "out/grades/submissions/grades.csv").open() as file:
            found = {row["student"]: row["score"] for row in csv.DictReader(file)}
        lost = {name: found.get(name) for name, points in wanted.items()
                if found.get(name) != points}
        report("lost, or with other points than they deserve", "", [len(lost)])
        print(lost or "")


PARTS = {"models": models, "attention": attention, "transformer": transformers,
         "import": imports, "demos": demos, "preprocess": preprocess, "start": start,
         "ready": ready, "build": build, "live": live, "grading": grading}

if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        sys.exit(f"bench: there is no {unknown[0]}; the parts: {', '.join(PARTS)}")
    describe_machine()
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
