"""Live code as a lecturer uses it: Chromium, our server, and a real kernel."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

MODULE = '''\
# %% [markdown]
# # Lively
#
# - **Paper**: Ada Author, Ben Builder. *On Samples*. CVPR 2016.
#   [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)
# - **Idea**: have something to run.

# %%
import time

import torch

from lab import cli, figures, training


# %%
class Model(torch.nn.Module):
    def forward(self, x):
        return x[:, 1:]


# %%
def base():
    return 1


# %%
def other():
    return base() + 1


# %% Arguments
if __name__ == "__main__":
    args = cli.begin({"digits": cli.Settings()})

# %% Say it
if __name__ == "__main__":
    print("base is", base())

# %% Train
if __name__ == "__main__":
    def step(batch):
        time.sleep(0.02)
        return {"loss": 1 / (1 + float(batch.sum()))}

    training.fit(step, [torch.ones(1)] * 50, args, name="steps", epochs=4)
    print("trained")
'''

MODEL = """\
class Model(torch.nn.Module):
    def forward(self, x):
        return x[:, 1:]"""

DECK = """\
---
title: Lively
family: Sample
date: 2026-11-21
---
# Lively

What can be run

<!--s-->

## A definition

[base](../code/lively.py#base "run")

<!--s-->

## A demo

[Say it](../code/lively.py#say-it "run")

<!--s-->

## A training

[Train](../code/lively.py#train "run")

<!--s-->

## A model

[Model](../code/lively.py#Model "run")

<!--s-->

## Nothing to run

Words.
"""

expect.set_options(timeout=30_000)
IS_READY = "() => window.Reveal?.isReady()"
LONG_TASKS = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
}).observe({ type: "longtask", buffered: true });
"""


class Server:
    """Our server for a copy of the lectures; commands go to its standard input."""

    def __init__(self, folder, jupyter=sys.executable, **variables):
        self.folder = folder
        self.log = folder / "server.log"
        self.process = subprocess.Popen(
            ["node", "tests/live_server.mjs", jupyter], cwd=folder, text=True,
            env={**os.environ, **variables}, stderr=self.log.open("a"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.url = self.process.stdout.readline().strip()

    def tell(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def key(self):
        self.tell("key")
        return self.process.stdout.readline().strip()

    def processes(self, part):
        """Ids of this copy's running processes whose command line has this part."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_text()
                ours = Path(os.readlink(folder / "cwd")).is_relative_to(self.folder)
            except OSError:
                continue
            if part in command and ours:
                found.append(int(folder.name))
        return found


@pytest.fixture(scope="module")
def server(copy_lectures):
    folder = copy_lectures()
    (folder / "code/lively.py").write_text(MODULE)
    (folder / "slides/lively.md").write_text(DECK)
    server = Server(folder)
    yield server
    server.process.terminate()
    server.process.wait(20)


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(60_000)
    context.add_init_script(LONG_TASKS)
    yield context
    context.close()


@pytest.fixture
def page(server, context):
    """The deck in a browser that was let in, its kernel ready and without edits."""
    page = context.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"{server.url}/enter#key={server.key()}&deck=lively.md")
    page.wait_for_function(IS_READY)
    is_ready(page)
    forget_module(page)
    yield page
    assert page.complaints == []


def is_ready(page):
    expect(page.locator(".kernel-light")).to_contain_text(
        "kernel ready", timeout=60_000)


def forget_module(page):
    """Have the kernel read the module again, without the edits of other tests."""
    show(page, 3)
    run(page, "say-it", "import sys\nfrom lab import live\n"
        "live._modules.clear()\ndel sys.modules['lively']")
    block(page, "say-it").locator(".reset").click()
    expect(block(page, "say-it").locator("pre")).to_be_visible()


def show(page, number):
    """Go to the slide of that number, the first is 1."""
    page.evaluate("(i) => Reveal.slide(i - 1)", number)


def block(page, symbol):
    return page.locator(f'.code[data-symbol="{symbol}"]')


def output(page, symbol):
    return block(page, symbol).locator("~ .output")


def menu(page, symbol, entry):
    block(page, symbol).locator("summary").click()
    block(page, symbol).get_by_role("button", name=entry).or_(
        block(page, symbol).get_by_text(entry, exact=True)).first.click()


def write(page, symbol, text):
    """Put text into a block's editor as a person does: click, select all, type."""
    editor = block(page, symbol)
    if not editor.locator(".cm-content").count():
        editor.locator("pre").click()
    editor.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)


def run(page, symbol, text=None, wait=True):
    if text is not None:
        write(page, symbol, text)
        page.keyboard.press("Shift+Enter")
    else:
        block(page, symbol).locator(".run").click()
    if wait:
        expect(block(page, symbol).locator(".run-status")).to_have_text(
            re.compile("^[✓✗] |ended"), timeout=60_000)


def test_an_edit_is_run_and_reset(page):
    show(page, 3)
    page.keyboard.press("Shift+Enter")
    expect(output(page, "say-it")).to_contain_text("base is 1")
    show(page, 2)
    run(page, "base", "def base():\n    return 42")
    show(page, 3)
    run(page, "say-it")
    expect(output(page, "say-it")).to_contain_text("base is 42")
    show(page, 2)
    block(page, "base").locator(".reset").click()
    expect(block(page, "base").locator("pre")).to_contain_text("return 1")
    show(page, 3)
    run(page, "say-it")
    expect(output(page, "say-it")).to_contain_text("base is 1")


def test_typing_does_not_move_slides(page):
    show(page, 2)
    write(page, "base", "")
    page.keyboard.type("def base():\nreturn 3  # fosbt?", delay=5)
    for key in ["ArrowLeft", "ArrowRight", "Home", "Space", "Escape"]:
        page.keyboard.press(key)
    assert page.evaluate("Reveal.getIndices().h") == 1
    assert not page.evaluate("Reveal.isOverview()")
    page.keyboard.press("ArrowRight")  # Escape has left the editor
    assert page.evaluate("Reveal.getIndices().h") == 2


def test_a_clicker_moves_slides_whatever_was_done_last(page):
    """Its page keys, from the editor and after a run; its black screen after a run."""
    def at():
        return page.evaluate("Reveal.getIndices().h + 1")

    show(page, 3)
    write(page, "say-it", "print('typed')")
    page.keyboard.press("PageDown")
    assert at() == 4
    page.keyboard.press("PageUp")
    assert at() == 3
    run(page, "say-it", "print('typed')")
    page.keyboard.press("b")
    assert page.evaluate("Reveal.isPaused()")
    page.keyboard.press("b")
    page.keyboard.press("PageDown")
    assert at() == 4
    page.keyboard.press("PageUp")
    page.keyboard.press("Enter")  # goes on editing
    page.keyboard.press("End")
    page.keyboard.type("  # b.")
    expect(block(page, "say-it").locator(".cm-content")).to_have_text(
        "print('typed')  # b.")
    assert at() == 3


LONG = "\n".join(f"x{i} = {i}" for i in range(18))
FIGURE = """
import matplotlib.pyplot as plt
plt.plot([1, 2])
None"""


def test_a_result_stands_with_its_code(page):
    """Neither covers the other, and both are on the slide."""
    show(page, 3)
    lines = "for i in range(200):\n    print(i)"
    for shown in ["print('one line')", lines, FIGURE]:
        for code in ["", LONG]:
            run(page, "say-it", f"{code}\n{shown}")
            assert_stands(page, figure=shown == FIGURE)


def assert_stands(page, figure):
    def box(part):
        found = part.bounding_box()
        return found["y"], found["y"] + found["height"]

    panel, code = output(page, "say-it"), block(page, "say-it")
    if figure:
        expect(panel.locator("img")).to_be_visible()
    (_, code_end), (top, end) = box(code), box(panel)
    assert code_end <= top and end <= box(page.locator("section.present .body"))[1] + 1
    editor, _ = box(code.locator(".cm-editor"))
    first, last = box(code.locator(".cm-content"))
    assert code_end - editor >= min(150, last - first)
    if figure:
        image, image_end = box(panel.locator("img"))
        assert image_end - image > 200 and image_end <= end


def test_outputs_survive_slides_and_reloads(page):
    show(page, 3)
    run(page, "say-it", "print('kept')")
    show(page, 6)
    show(page, 3)
    expect(output(page, "say-it")).to_contain_text("kept")
    page.reload()
    page.wait_for_function(IS_READY)
    expect(output(page, "say-it")).to_contain_text("kept")
    expect(block(page, "say-it").locator(".cm-content")).to_have_text("print('kept')")


def test_stop_ends_an_endless_loop(page):
    show(page, 3)
    run(page, "say-it", "while True:\n    pass", wait=False)
    expect(page.locator(".kernel-light")).to_contain_text("running")
    block(page, "say-it").locator(".stop").click()
    expect(output(page, "say-it")).to_contain_text("Stopped.")
    run(page, "say-it", "print('goes on')")
    expect(output(page, "say-it")).to_contain_text("goes on")


def test_a_restart_forgets_everything(page):
    show(page, 2)
    run(page, "base", "def base():\n    return 5")
    show(page, 3)
    run(page, "say-it", "mine = base()\nprint('base is', mine)")
    expect(output(page, "say-it")).to_contain_text("base is 5")
    menu(page, "say-it", "Restart kernel")
    expect(page.locator(".kernel-light")).to_contain_text("starting")
    is_ready(page)
    run(page, "say-it", "print('base is', base(), 'mine' in globals())")
    expect(output(page, "say-it")).to_contain_text("base is 1 False")


@pytest.mark.parametrize("death", [
    "import os\nos._exit(1)", "import ctypes\nctypes.string_at(0)"],
    ids=["exit", "segfault"])
def test_a_dead_kernel_starts_again(page, death):
    show(page, 2)
    run(page, "base", "def base():\n    return 5\n\nprint('defined')")
    show(page, 3)
    run(page, "say-it", death)
    expect(output(page, "say-it")).to_contain_text("The kernel ended before this did")
    is_ready(page)
    expect(output(page, "base")).to_contain_text("defined")
    run(page, "say-it", "print('base is', base())")
    expect(output(page, "say-it")).to_contain_text("base is 1")


@pytest.mark.parametrize("text", [
    "for i in range(200_000):\n    print(i)", "print('x' * 10 ** 8)",
    "'x' * 10 ** 8"], ids=["lines", "text", "value"])
def test_floods_leave_the_page_responsive(page, text):
    show(page, 3)
    page.evaluate("longest = 0")
    run(page, "say-it", text)
    expect(output(page, "say-it")).to_contain_text("left out")
    page.wait_for_timeout(300)
    assert page.evaluate("longest") < 200
    assert page.evaluate("document.querySelectorAll('.output *').length") < 2000


def test_a_mistake_in_a_definition(page):
    show(page, 2)
    run(page, "base", "def base(:\n    return 1")
    expect(output(page, "base")).to_contain_text("SyntaxError")
    run(page, "base", "def base():\n    return 1 / 0")
    show(page, 3)
    run(page, "say-it")
    expect(output(page, "say-it")).to_contain_text("return 1 / 0")
    expect(output(page, "say-it")).to_contain_text("ZeroDivisionError")


def test_memory(page):
    show(page, 3)
    run(page, "say-it", "import resource\nlimit = 64 * 2 ** 30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\nbytearray(2 ** 37)")
    expect(output(page, "say-it")).to_contain_text("MemoryError")
    run(page, "say-it", "print('goes on')")
    expect(output(page, "say-it")).to_contain_text("goes on")


def test_a_killed_server_is_started_again(page, server):
    show(page, 3)
    run(page, "say-it", "print('before')")
    (pid,) = server.processes("kernels.py")
    os.kill(pid, signal.SIGKILL)
    expect(page.locator(".kernel-light")).not_to_contain_text("kernel ready")
    is_ready(page)
    expect(output(page, "say-it")).to_contain_text("before")
    run(page, "say-it", "print('after')")
    expect(output(page, "say-it")).to_contain_text("after")


SLOW = """\
for i in range(20):
    print('step', i, flush=True)
    time.sleep(0.2)
print('at the end')"""


def assert_goes_on(page):
    """The run ends as if nothing had been, all its steps once and in order."""
    expect(block(page, "say-it").locator(".run-status")).to_contain_text("✓")
    lines = [*(f"step {i}" for i in range(20)), "at the end"]
    expect(output(page, "say-it").locator(".content")).to_have_text(
        " ".join(lines), use_inner_text=True)
    is_ready(page)


def test_a_reload_in_mid_run(page):
    show(page, 3)
    run(page, "say-it", SLOW, wait=False)
    expect(output(page, "say-it")).to_contain_text("step 2")
    page.reload()
    page.wait_for_function(IS_READY)
    show(page, 3)   # Reveal writes the address a second late
    assert_goes_on(page)


THREAD = """\
import threading
def later():
    for i in range(8):
        time.sleep(0.5)
        print('late', i)

threading.Thread(target=later).start()
print('over')"""


def test_what_a_thread_prints_is_shown_in_its_block(page):
    """After the end of its run, after a reload; no longer when the block runs again."""
    show(page, 3)
    run(page, "say-it", THREAD)
    expect(output(page, "say-it")).to_contain_text("late 1")
    page.reload()
    page.wait_for_function(IS_READY)
    expect(output(page, "say-it")).to_contain_text("late 7")
    lines = output(page, "say-it").locator(".text").inner_text().split("\n")
    assert list(filter(None, lines)) == ["over", *(f"late {i}" for i in range(8))]
    run(page, "say-it", THREAD.replace("'late'", "'old'"))
    run(page, "say-it", "time.sleep(1)\nprint('new')")
    page.wait_for_timeout(1000)
    assert output(page, "say-it").locator(".text").inner_text().strip() == "new"


def test_a_dropped_connection_is_resumed(page, server):
    """A laptop that was asleep: its WebSocket is gone, the kernel has gone on."""
    show(page, 3)
    run(page, "say-it", SLOW, wait=False)
    expect(output(page, "say-it")).to_contain_text("step 2")
    server.tell("drop")
    assert_goes_on(page)


def test_what_was_on_its_way_is_repeated(page, server):
    """A message that left the server and never came, as the connection broke."""
    def lose(socket):
        def pass_on(message):
            if b"step 3" in message and not lost:
                lost.append(message)
            else:
                socket.send(message)

        upstream = socket.connect_to_server()
        upstream.on_message(pass_on)

    lost = []
    page.route_web_socket(re.compile("/channels"), lose)
    page.reload()
    page.wait_for_function(IS_READY)
    show(page, 3)
    run(page, "say-it", SLOW, wait=False)
    expect(output(page, "say-it")).to_contain_text("step 4")
    assert "step 3" not in output(page, "say-it").inner_text()
    server.tell("drop")
    assert_goes_on(page)


def test_two_tabs_share_a_kernel(page, context, server):
    show(page, 2)
    run(page, "base", "def base():\n    return 8")
    second = context.new_page()
    second.goto(f"{server.url}/lively.md")
    second.wait_for_function(IS_READY)
    is_ready(second)
    show(second, 3)
    run(second, "say-it")
    expect(output(second, "say-it")).to_contain_text("base is 8")
    assert len(server.processes("ipykernel_launcher")) == 1
    show(page, 3)
    run(page, "say-it", "print('first tab')")
    expect(output(page, "say-it")).to_contain_text("first tab")
    assert "first tab" not in output(second, "say-it").inner_text()


def test_the_speaker_view_has_no_kernel(page, context, server):
    with context.expect_page() as opened:
        page.keyboard.press("s")
    notes = opened.value
    notes.wait_for_selector("iframe")
    notes.wait_for_timeout(3000)
    for frame in notes.frames[1:]:
        assert not frame.locator(".kernel-light").count()
    assert len(server.processes("ipykernel_launcher")) == 1


def test_output_is_sanitised(page):
    show(page, 3)
    run(page, "say-it", r"""
from IPython.display import HTML, SVG
display(HTML('''<b onclick="window.bad = 1">bold</b><script>window.bad = 2</script>
<img src="x" onerror="window.bad = 3"><a href="javascript:window.bad = 4">link</a>
<style>body { display: none }</style><iframe srcdoc="<script>parent.bad = 5</script>">
</iframe><form action="/"><button>go</button></form>'''))
display(SVG('<svg xmlns="http://www.w3.org/2000/svg" onload="window.bad = 6">'
            '<script>window.bad = 7</script></svg>'))
print('\x1b]8;;javascript:window.bad=8\x1b\\text\x1b]8;;\x1b\\ '
      '<script>window.bad = 9</script>')
""".strip())
    expect(output(page, "say-it")).to_contain_text("<script>window.bad = 9")
    html = output(page, "say-it").locator(".html")
    expect(html.get_by_text("bold")).to_be_visible()
    html.get_by_text("bold").click()
    html.get_by_text("link").click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.bad") is None
    inside = html.evaluate("(host) => host.shadowRoot.innerHTML")
    assert not re.search(
        "onclick|onerror|script|iframe|<form|<button|display: none", inside)
    assert not output(page, "say-it").locator("a[href^='javascript']").count()


BARS = """\
from tqdm.auto import tqdm
for _ in tqdm(range(3), desc="outer"):
    for _ in tqdm(range(2), desc="inner"):
        pass"""
NOTEBOOK = r"""
import base64, io, wave
import ipywidgets
from IPython.display import *
from PIL import Image as Picture
gif, sound = io.BytesIO(), io.BytesIO()
Picture.new("L", (30, 20)).save(gif, "GIF")
with wave.open(sound, "wb") as file:
    file.setparams((1, 1, 8000, 0, "NONE", ""))
    file.writeframes(b"0" * 800)
display(Markdown('''## Title <script>bad = 1</script><i onclick="bad = 2">slanted</i>

| a | b |
|---|---|
| $x^2$ | [away](javascript:bad=3) |
'''), Math(r"\frac{a}{b}\href{javascript:bad=4}{c}"),
    Latex(r"\begin{align}y &= 1\end{align}"), JSON({"key": [1, 2]}),
    Image(gif.getvalue(), format="gif"), Audio(sound.getvalue()),
    IFrame("https://example.org/frame", 9, 9), Javascript("bad = 5"),
    ipywidgets.IntSlider())
display({"application/pdf": "x", "text/plain": "a paper"}, raw=True)
display(
    HTML('<div><img id="a"><button>Play</button></div><script>bad = 6</script>'),
    HTML('<video controls src="data:video/mp4;base64,AAAA" onerror="bad = 7">'))
display({"text/plain": "plain"}, raw=True)
"""


def test_what_a_notebook_shows_is_shown_or_named(page):
    """And nothing of it is executed."""
    show(page, 3)
    run(page, "say-it", NOTEBOOK.strip())
    panel = output(page, "say-it")
    expect(panel).to_contain_text("plain")
    markdown = panel.locator(".html").first
    expect(markdown.locator("h2")).to_have_text("Title slanted")
    expect(markdown.locator("td .katex")).to_be_visible()
    expect(panel.locator(".katex-display")).to_have_count(1)
    assert panel.locator(".katex .mfrac").count() == 1
    assert not panel.locator(".katex a, a[href^='javascript']").count()
    expect(panel).to_contain_text('"key": [')
    image = panel.locator("img[src^='data:image/gif']")
    assert image.evaluate("(image) => image.naturalWidth") == 30
    sound = panel.locator("audio[controls]")
    sound.evaluate("(audio) => audio.readyState || new Promise((resolve, reject) => {"
                   "audio.onloadedmetadata = resolve; audio.querySelector('source')"
                   ".onerror = reject; audio.load(); })")
    assert panel.locator("video[controls]").count() == 1
    told = panel.inner_text()
    for line in ["A frame is not shown on slides: open https://example.org/frame in",
                 "application/javascript is not shown on slides",
                 "A widget (IntSlider) is not shown on slides: print its value",
                 "application/pdf is not shown on slides: a paper",
                 "HTML with scripts is not shown on slides: show an image"]:
        assert line in told
    markdown.get_by_text("slanted").click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.bad") is None
    run(page, "say-it", BARS)
    bars = panel.locator(".text").inner_text().split()
    assert [word for word in bars if word.endswith(":")] == ["inner:"] * 3 + ["outer:"]


def test_a_training_shows_its_curve_and_goes_on_elsewhere(page):
    show(page, 4)
    run(page, "train", wait=False)
    line = output(page, "train").locator("polyline")
    expect(output(page, "train").locator(".curve svg")).to_be_visible()
    few = len(line.get_attribute("points").split())
    show(page, 6)
    expect(page.locator(".kernel-light")).to_contain_text("running · train")
    expect(page.locator(".kernel-light")).to_contain_text("✓ train")
    page.locator(".kernel-light").click()
    assert page.evaluate("Reveal.getIndices().h") == 3
    assert len(line.get_attribute("points").split()) > few
    expect(output(page, "train")).to_contain_text("trained")


def test_stop_keeps_the_curve(page):
    show(page, 4)
    run(page, "train", wait=False)
    expect(output(page, "train").locator(".curve svg")).to_be_visible()
    block(page, "train").locator(".stop").click()
    expect(output(page, "train")).to_contain_text("Stopped.")
    expect(output(page, "train").locator(".curve svg")).to_be_visible()


def test_shapes_beside_the_lines(page):
    show(page, 5)
    block(page, "Model").get_by_role("button", name="Shapes").click()
    run(page, "Model", MODEL + "\n\nModel()(torch.ones(2, 3, 4)); None")
    shape = block(page, "Model").locator(".cm-line[data-shape]")
    expect(shape).to_have_attribute("data-shape", "(2, 2, 4)")
    assert "return x" in shape.inner_text()
    block(page, "Model").get_by_role("button", name="Shapes").click()
    expect(shape).to_have_count(0)


def test_the_secret_is_for_our_port_only(page, context, web, server):
    """Cookies would go to every port of this machine: there are none."""
    folder, address = web
    (folder / "index.html").write_text("<p>Another user's")
    asked = []
    for name in ["127.0.0.1", "localhost"]:
        other = context.new_page()
        other.on("request", lambda request: asked.append(request.all_headers()))
        other.goto(address.replace("127.0.0.1", name))
        other.evaluate("fetch('/kernel/state').catch(() => {})")
        assert other.evaluate("localStorage.length + sessionStorage.length") == 0
        assert other.evaluate("""(url) => fetch(`${url}/kernel/api/sessions`, {
            method: 'POST', body: '{}', mode: 'no-cors', credentials: 'include',
        }).then(() => 'answered', () => 'refused')""", server.url) == "refused"
        other.close()
    assert len(asked) >= 4
    for headers in asked:
        assert not {"cookie", "authorization"} & set(headers)
    assert context.cookies() == []
    secret = page.evaluate("localStorage['live-secret']")
    assert len(secret) > 40 and secret not in server.log.read_text()


def test_the_page_that_npm_start_opens_leads_in_and_keeps_no_key(
        context, server, tmp_path):
    """It is a file, so that the key is in no command line; see start.mjs."""
    key = server.key()
    link = f"{server.url}/enter#key={key}&deck=lively.md"
    (tmp_path / "open.html").write_text(
        f'<meta http-equiv="refresh" content="0; url={link}">')
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(
        request.url.partition("#")[0] + str(request.headers)))
    page.on("console", lambda message: complaints.append(message.text)
            if message.type == "error" else None)
    page.goto((tmp_path / "open.html").as_uri())
    page.wait_for_url("**/lively.md*")
    is_ready(page)
    assert not any(key in request for request in asked) and not complaints
    assert page.evaluate("document.referrer") == f"{server.url}/enter"
    page.go_back()
    assert key not in page.url
    page.goto(link)
    expect(page.locator("h1")).to_contain_text("used already")
    assert key not in page.url


def test_a_browser_that_was_not_let_in_runs_nothing(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/lively.md")
    page.wait_for_function(IS_READY)
    page.wait_for_timeout(500)
    assert not page.locator(".tools, .kernel-light").count()
    context.close()


def test_notebook_and_copy(page, server):
    show(page, 3)
    with page.expect_download() as download:
        menu(page, "say-it", "Open in notebook")
    assert download.value.suggested_filename == "lively.ipynb"
    assert '"cells"' in Path(download.value.path()).read_text()
    write(page, "say-it", "print('mine')")
    block(page, "say-it").locator("summary").click()
    block(page, "say-it").get_by_placeholder("name of the copy").fill("mine")
    block(page, "say-it").get_by_text("Save my edit").click()
    expect(block(page, "say-it").locator(".run-status")).to_have_text(
        "saved as out/live/mine.py")
    assert "print('mine')" in (server.folder / "out/live/mine.py").read_text()
    assert "print('mine')" not in (server.folder / "code/lively.py").read_text()


def test_run_all_above(page):
    """The definitions of this module before a block, then the block itself."""
    show(page, 2)
    write(page, "base", "def base():\n    return 5")
    show(page, 3)
    menu(page, "say-it", "Run all above")
    expect(output(page, "say-it")).to_contain_text("base is 5")
    expect(block(page, "base").locator(".run-status")).to_contain_text("✓")
    expect(output(page, "train")).to_be_hidden()


def test_the_code_is_copied_as_it_was_edited(page, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(page, 3)
    write(page, "say-it", "print('mine')")
    menu(page, "say-it", "Copy")
    assert page.evaluate("navigator.clipboard.readText()") == "print('mine')"


def test_another_jupyter_server(browser, server, tmp_path):
    """One that somebody started by themselves, in a checkout; the token is theirs."""
    command = [sys.executable, "-m", "jupyter_server", "--ip=127.0.0.1", "--port=0",
               "--no-browser", "--allow-root"]
    environment = {**os.environ, "JUPYTER_TOKEN": "theirs",
                   "JUPYTER_RUNTIME_DIR": str(tmp_path),
                   "JUPYTER_CONFIG_DIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=server.folder / "slides", env=environment,
                          stderr=subprocess.PIPE, text=True) as jupyter:
        address = next(filter(None, (re.search(r"http://127[\w.]+:\d+/", line)
                                     for line in jupyter.stderr)))[0]
        ours = Server(server.folder, address, JUPYTER_TOKEN="theirs")
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{ours.url}/enter#key={ours.key()}&deck=lively.md")
        page.wait_for_function(IS_READY)
        is_ready(page)
        show(page, 3)
        run(page, "say-it")
        expect(output(page, "say-it")).to_contain_text("base is 1")
        context.close()
        ours.process.terminate()
        jupyter.terminate()


def test_the_server_ends_with_us(server):
    """Also when Node is killed: neither Jupyter nor a kernel stays."""
    def pythons():
        return set(another.processes("kernels.py")) - before

    def wait(condition):
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert condition()

    before = set(server.processes("kernels.py"))
    another = Server(server.folder)
    wait(pythons)
    time.sleep(3)
    another.process.kill()
    another.process.wait()
    wait(lambda: not pythons())


def test_the_token_is_in_no_command_line_environment_or_log(page, server):
    """Those of the kernel included, so that no code on a slide prints it."""
    assert "token" not in server.log.read_text().lower()
    (jupyter,) = server.processes("kernels.py")
    for pid in [jupyter, *server.processes("ipykernel_launcher")]:
        told = (Path(f"/proc/{pid}/cmdline").read_text()
                + Path(f"/proc/{pid}/environ").read_text())
        assert "token" not in told.lower()
