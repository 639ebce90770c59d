"""The npm commands in a copy of the repository: set-up, start, build, pdf, notebooks.

npm and Python are stand-ins there that note how they were called, and sleep or fail
when told to; one test makes a real environment.
"""

import contextlib
import functools
import html.parser
import http.server
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lab.source import module_hash

root = Path(__file__).parents[1]
node = shutil.which("node")

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="the stand-ins are shell scripts")

FAKE_NPM = """
import { appendFileSync, mkdirSync, readdirSync, rmSync, symlinkSync } from "node:fs";
const { FAKES, REAL_MODULES, NPM_SECONDS = 0, NPM_FAILS } = process.env;
appendFileSync(`${FAKES}/log`, `npm ${process.argv[2]}\\n`);
mkdirSync("node_modules", { recursive: true });
for (const name of readdirSync("node_modules").filter((name) => !name.startsWith(".")))
  rmSync(`node_modules/${name}`);
await new Promise((resolve) => setTimeout(resolve, NPM_SECONDS * 1000));
if (NPM_FAILS) process.exit(1);
for (const name of readdirSync(REAL_MODULES).filter((name) => !name.startsWith(".")))
  symlinkSync(`${REAL_MODULES}/${name}`, `node_modules/${name}`);
"""

FAKE_PYTHON = """#!/bin/sh
PATH=/usr/bin:/bin
version=$(cat "$FAKES/version")
case "$*" in
*ensurepip*)
    echo "$version"
    [ -e "$FAKES/no-ensurepip" ] && exit 1
    echo "$0" ;;
*"import sys, pip"*)
    echo "$version (stand-in)" ;;
"-m venv "*)
    echo venv >> "$FAKES/log"
    mkdir -p "$3/bin" "$3/lib/python3.12/site-packages"
    cp "$0" "$3/bin/python"
    sleep ${VENV_SECONDS:-0} ;;
"-m pip "*)
    for last; do :; done
    echo "pip $last" >> "$FAKES/log"
    [ -z "$PIP_SECONDS" ] || exec sleep "$PIP_SECONDS"
    exit ${PIP_EXIT:-0} ;;
*)
    exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Checkout:
    """A copy of the repository, without what set-up makes, and its stand-ins."""

    def __init__(self, folder, ready=None):
        """In this folder; as a checkout that is ready, if there is one."""
        self.path = folder / "checkout"
        self.fakes = folder / "fakes"
        self.processes = []
        if ready:
            for name in ["path", "fakes"]:
                shutil.copytree(getattr(ready, name), getattr(self, name),
                                symlinks=True)
            return
        skip = shutil.ignore_patterns(
            "node_modules", ".venv", ".git", "lib", "_site*", "out", "data",
            "__pycache__", ".setup.lock")
        shutil.copytree(root, self.path, ignore=skip)
        (self.fakes / "bin").mkdir(parents=True)
        (self.fakes / "npm-cli.js").write_text(FAKE_NPM)
        (self.fakes / "package.json").write_text('{"type": "module"}')
        (self.fakes / "version").write_text("3.12.1")
        (self.fakes / "log").write_text("")
        self.add_python("python3")

    def add_python(self, name, script=FAKE_PYTHON):
        (self.fakes / "bin" / name).write_text(script)
        (self.fakes / "bin" / name).chmod(0o755)

    def write(self, name, text):
        (self.path / name).write_text(text)

    def log(self):
        """What npm and Python were asked since the last call."""
        lines = (self.fakes / "log").read_text().splitlines()
        (self.fakes / "log").write_text("")
        return lines

    def wait_for(self, line):
        wait(lambda: line in (self.fakes / "log").read_text().splitlines())

    def begin(self, script, *arguments, folder="", **settings):
        """Start a script in a folder of the checkout."""
        environment = {
            "PATH": str(self.fakes / "bin"), "HOME": str(self.fakes),
            "FAKES": str(self.fakes), "REAL_MODULES": str(root / "node_modules"),
            "REAL_PYTHON": sys.executable, "NO_UPDATE_NOTIFIER": "1",
            "npm_execpath": str(self.fakes / "npm-cli.js"),
            **{name: str(value) for name, value in settings.items()},
        }
        process = subprocess.Popen(
            [node, self.path / script, *map(str, arguments)],
            cwd=self.path / folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True)
        self.processes.append(process)
        return process

    def run(self, script, *arguments, **settings):
        process = self.begin(f"slides/engine/{script}.mjs", *arguments, **settings)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(script, process.returncode, output, errors)

    def python(self, *arguments, **settings):
        return self.run("python", *arguments, **settings)

    def begin_python(self, *arguments, **settings):
        return self.begin("slides/engine/python.mjs", *arguments, **settings)

    def start(self, *arguments, **settings):
        """Starts the server and returns it with its address."""
        port = () if "--port" in arguments else ("--port", 0)
        process = self.begin(
            "slides/engine/start.mjs", "--no-open", *port, *arguments, **settings)
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, line + process.stderr.read()
        return process, address[0]

    def end(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


DECK = """---
title: Small
family: CNN
date: 2026-11-21
---

# Small

<!--s-->

## A sum

$$ y = \\begin{pmatrix} a \\\\ b \\end{pmatrix} $$

```python
price = "$5"  # </textarea>
```

Note: Say it slowly.
"""


@pytest.fixture
def checkout(tmp_path):
    checkout = Checkout(tmp_path)
    yield checkout
    checkout.end()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A checkout that is set up, once for all tests, to be copied."""
    checkout = Checkout(tmp_path_factory.mktemp("prepared"))
    assert checkout.python("-c", "").returncode == 0
    checkout.log()
    return checkout


@pytest.fixture
def ready(prepared, tmp_path):
    """A checkout of the test's own that is set up."""
    checkout = Checkout(tmp_path, prepared)
    yield checkout
    checkout.end()


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


# Where the user stands --------------------------------------------------------


def by_npm(checkout, folder):
    """The settings with which npm starts a script when called in this folder."""
    return {"INIT_CWD": checkout.path / folder,
            "npm_package_json": checkout.path / "package.json"}


SHOW = "import os, sys; print(os.getcwd(), *sys.argv[1:])"


def test_a_script_runs_where_the_user_stands(ready):
    ready.write("code/show.py", SHOW)
    (ready.path / "my work").mkdir()
    there = str(ready.path / "my work")
    done = ready.python("code/show.py", "../x", **by_npm(ready, "my work"))
    assert done.stdout.split("\n")[0] == f"{there} ../x", done.stderr
    done = ready.python("code/show.py", "../x", folder="my work")
    assert done.stdout.split("\n")[0] == f"{there} ../x", done.stderr
    # npm has started another package's script, and that one this
    done = ready.python("code/show.py", folder="slides", INIT_CWD=there,
                        npm_package_json=ready.fakes / "package.json")
    assert done.stdout.split("\n")[0] == str(ready.path / "slides"), done.stderr


def test_tests_run_in_the_repository_with_paths_of_the_user(ready):
    done = ready.python("-c", SHOW, "test_node.py::test_node", "-k", "lenet",
                        **by_npm(ready, "tests"))
    assert done.stdout.split() == [
        str(ready.path), f"{ready.path}/tests/test_node.py::test_node", "-k", "lenet"]


@pytest.mark.parametrize("folder, name", [
    ("slides", "none.md"), ("out/deep", "../../slides/none.md")])
def test_a_message_shows_paths_from_where_the_user_stands(ready, folder, name):
    (ready.path / folder).mkdir(parents=True, exist_ok=True)
    done = ready.run("pdf", name, **by_npm(ready, folder))
    assert done.returncode == 1
    decks = os.path.relpath(ready.path / "slides", ready.path / folder)
    assert f"The decks: {Path(decks) / 'attention.md'}, " in done.stderr


# Set-up --------------------------------------------------------------------


def test_only_what_changed_is_set_up(checkout):
    first = checkout.python("-c", "print('hello')")
    assert (first.returncode, first.stdout) == (0, "hello\n"), first.stderr
    assert "Installing npm packages" in first.stderr
    assert checkout.log() == ["npm ci", "venv", "pip requirements.txt"]
    assert (checkout.path / "static/lib/reveal/reveal.js").exists()

    assert checkout.python("-c", "").stderr == ""
    assert checkout.log() == []

    checkout.python("--tests", "-c", "")
    checkout.python("-c", "")
    assert checkout.log() == ["pip tests/requirements.txt"]

    checkout.write("requirements.txt", "torch>=2.12\n")
    checkout.python("--tests", "-c", "")
    checkout.python("-c", "")
    assert checkout.log() == ["pip tests/requirements.txt"]

    checkout.write("package-lock.json", "{}")
    checkout.python("-c", "")
    assert checkout.log() == ["npm ci"]

    (checkout.fakes / "version").write_text("3.13.0")
    checkout.python("-c", "")
    assert checkout.log() == ["venv", "pip requirements.txt"]


def test_missing_or_broken_environments_are_remade(ready):
    python = ready.path / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert ready.python("-c", "").returncode == 0
    assert ready.log() == ["venv", "pip requirements.txt"]
    shutil.rmtree(ready.path / "node_modules")
    ready.python("-c", "")
    assert ready.log() == ["npm ci"]
    (ready.path / "static/lib/reveal/reveal.js").unlink()
    ready.python("-c", "")
    assert (ready.path / "static/lib/reveal/reveal.js").exists()


@pytest.mark.parametrize("step, settings, repeated", [
    ("npm ci", {"NPM_SECONDS": 30}, ["npm ci", "venv", "pip requirements.txt"]),
    ("venv", {"VENV_SECONDS": 30}, ["venv", "pip requirements.txt"]),
    ("pip requirements.txt", {"PIP_SECONDS": 30}, ["pip requirements.txt"]),
])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_set_up_is_resumed(checkout, step, settings, repeated, number):
    process = checkout.begin_python("-c", "", **settings)
    checkout.wait_for(step)
    half = checkout.path / ".venv/lib/python3.12/site-packages/half-1.0.dist-info"
    if step.startswith("pip"):
        half.mkdir()
    os.killpg(process.pid, number)
    process.communicate(timeout=10)
    assert process.returncode != 0
    checkout.log()
    again = checkout.python("-c", "print('hello')")
    assert (again.returncode, again.stdout) == (0, "hello\n"), again.stderr
    assert checkout.log() == repeated
    assert not half.exists()
    checkout.python("-c", "")
    assert checkout.log() == []


@pytest.mark.parametrize("file, step, settings", [
    ("package-lock.json", "npm ci", {"NPM_SECONDS": 30}),
    ("requirements.txt", "pip requirements.txt", {"PIP_SECONDS": 30}),
])
def test_what_a_killed_update_left_is_not_taken_for_the_former(
    ready, file, step, settings
):
    former = (ready.path / file).read_text()
    ready.write(file, former + "\n")
    process = ready.begin_python("-c", "", **settings)
    ready.wait_for(step)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ready.log()
    ready.write(file, former)
    ready.python("-c", "")
    assert ready.log() == [step]


def test_two_commands_at_once_set_up_once(checkout):
    settings = {"NPM_SECONDS": 0.5, "PIP_SECONDS": 0.5}
    both = [checkout.begin_python("-c", "print('hello')", **settings) for _ in range(2)]
    outputs = [process.communicate(timeout=30) for process in both]
    assert [output for output, _ in outputs] == ["hello\n"] * 2, outputs
    assert checkout.log() == ["npm ci", "venv", "pip requirements.txt"]
    assert any("Waiting for another command" in errors for _, errors in outputs)


def test_orphaned_pip_is_waited_for(checkout):
    process = checkout.begin_python("-c", "", PIP_SECONDS=2)
    checkout.wait_for("pip requirements.txt")
    time.sleep(0.2)
    process.kill()
    process.wait()
    begin = time.monotonic()
    assert "Waiting for another command" in checkout.python("-c", "").stderr
    assert time.monotonic() - begin > 1


OLD = FAKE_PYTHON.replace('$(cat "$FAKES/version")', "3.9.2")


@pytest.mark.parametrize("pythons, settings, message", [
    ({}, {}, "No Python found. Install Python 3.11 or newer"),
    ({"python3": OLD, "python": OLD}, {}, "3.11 or newer is needed; here is 3.9.2"),
    ({"python3.12": "no-ensurepip"}, {}, "sudo apt install python3-venv"),
    ({"python3": FAKE_PYTHON}, {"PIP_EXIT": 1}, "pip could not install requirements"),
])
def test_python_that_cannot_be_set_up_is_one_line_and_decks_are_shown(
    checkout, pythons, settings, message
):
    (checkout.fakes / "bin/python3").unlink()
    for name, script in pythons.items():
        if script == "no-ensurepip":
            (checkout.fakes / "no-ensurepip").touch()
            script = FAKE_PYTHON
        checkout.add_python(name, script)
    done = checkout.python("-c", "", **settings)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert message in last and "    at " not in done.stderr
    if "PIP_EXIT" not in settings:
        assert done.stderr.splitlines() == ["Installing npm packages …", last]

    server, url = checkout.start(**settings)
    wait(lambda: message in server.stderr.readline())
    assert "Convolutional neural networks" in get(f"{url}/cnn.md")


def test_old_python_is_passed_over(checkout):
    checkout.add_python("python3", OLD)
    checkout.add_python("python3.12")
    assert checkout.python("-c", "").returncode == 0
    assert checkout.log() == ["npm ci", "venv", "pip requirements.txt"]


def test_npm_that_fails_is_one_line(checkout):
    done = checkout.python("-c", "", NPM_FAILS=1)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("npm could not install the packages")
    assert checkout.python("-c", "").returncode == 0


def test_real_environment(ready):
    """With the interpreter that runs these tests, and nothing to install."""
    shutil.rmtree(ready.path / ".venv")
    ready.write("requirements.txt", "")
    ready.add_python("python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    done = ready.python("-c", "import sys; print(sys.prefix)")
    assert done.stdout.strip() == str(ready.path.resolve() / ".venv"), done.stderr


# python.mjs ----------------------------------------------------------------


def test_exit_code_and_arguments_are_passed_on(ready):
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    done = ready.python("-c", code, "-k", "a b")
    assert (done.returncode, done.stdout) == (7, "['-k', 'a b']\n")


def test_signals_are_passed_on(ready):
    code = ("import signal, sys, time; print('up', flush=True);"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); time.sleep(30)")
    process = ready.begin_python("-c", code)
    assert process.stdout.readline() == "up\n"
    time.sleep(0.1)
    process.terminate()
    assert process.wait(10) == 9
    code = "import time; print('up', flush=True); time.sleep(30)"
    process = ready.begin_python("-c", code)
    process.stdout.readline()
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM


# start ---------------------------------------------------------------------


def test_serves_while_python_is_set_up(checkout):
    server, url = checkout.start("slides/cnn.md", PIP_SECONDS=30)
    assert "Convolutional neural networks" in get(url)
    assert "<section" in get(f"{url}/cnn.md")
    checkout.wait_for("pip requirements.txt")
    assert server.poll() is None


def test_second_start_sets_nothing_up(ready):
    before = ready.log()
    server, url = ready.start()
    assert "Convolutional neural networks" in get(f"{url}/cnn.md")
    server.terminate()
    server.wait()
    assert ready.log() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server_and_what_it_started(checkout, number):
    server, url = checkout.start(PIP_SECONDS=30)
    checkout.wait_for("pip requirements.txt")
    with urllib.request.urlopen(f"{url}/events", timeout=10):
        server.send_signal(number)
        assert server.wait(5) == 0
    with pytest.raises(urllib.error.URLError):
        get(url)
    assert "Traceback" not in server.stderr.read()
    wait(lambda: not group_is_alive(server.pid), seconds=3)


def group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_taken_port(ready):
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        server, url = ready.start("--port", port)
        assert f"Port {port} is taken" in server.stderr.readline()
        assert not url.endswith(f":{port}")
        assert "Convolutional neural networks" in get(url)


@pytest.mark.parametrize("arguments, message", [
    (["--colour"], "Unknown option '--colour'"),
    (["--port"], "--port"),
    (["--port", "x"], "--port x"),
    (["--port", "70000"], "--port 70000"),
    (["--host="], "--host"),
    (["slides/none.md"], "There is no deck slides/none.md. The decks: slides/"),
    (["README.md"], "There is no deck README.md"),
    (["slides/cnn.md", "slides/cnn.md"], "One deck at a time"),
])
def test_start_that_makes_no_sense_is_one_line(checkout, arguments, message):
    done = checkout.run("start", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert checkout.log() == []


def test_flags_do_not_reach_the_decks(ready):
    ready.write("slides/engine/template.html", "{{host}} {{port}} {{{markdown}}}")
    _, plain = ready.start()
    _, flagged = ready.start("slides/cnn.md", "--host", "127.0.0.1")
    assert get(f"{plain}/cnn.md") == get(f"{flagged}/cnn.md")


def test_broken_decks_are_shown_and_the_server_goes_on(ready):
    ready.write("slides/front.md", "---\ntitle: [\n---\n\n# A\n")
    ready.write("slides/link.md", DECK + "\n[Nothing](../code/nothing.py#Nothing)\n")
    _, url = ready.start()
    assert "slides/front.md:" in get(f"{url}/front.md")
    link = get(f"{url}/link.md")
    line = (DECK + "\n").count("\n") + 1
    assert f"slides/link.md:{line}" in link and "code/nothing.py#Nothing" in link
    assert "front.md" in get(url)


def test_plain_reveal_md_shows_the_same_slides(ready):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ready.begin(root / "node_modules/reveal-md/bin/reveal-md.js",
                "slides/cnn.md", "--port", port, "--disable-auto-open")
    _, url = ready.start()
    decks = sorted(path.name for path in (ready.path / "slides").glob("*.md"))
    wait(lambda: answers(f"http://127.0.0.1:{port}/{decks[0]}"))
    for deck in decks:
        plain = get(f"http://127.0.0.1:{port}/{deck}")
        ours = get(f"{url}/{deck}")
        assert "<section" in ours
        assert 'class="open"' not in plain
        assert slides(plain.replace("/_assets/static/", "static/")) == slides(
            without_links(ours))
    for asset in set(re.findall(r'"(/_assets/[^"]+)"', plain)) - {"/_assets/"}:
        assert answers(f"http://127.0.0.1:{port}{asset}"), asset


def answers(url):
    try:
        return bool(get(url))
    except OSError:
        return False


def without_links(page):
    """A page without the links to what plain reveal-md does not serve."""
    return re.sub(r'<a class="open"[^>]*>(.*?)</a>', r"\1", page)


def slides(page):
    return page[page.index('<div class="slides">'):]


# build ---------------------------------------------------------------------


def test_build_writes_a_site_that_stands_anywhere(ready):
    shutil.rmtree(ready.path / "slides")
    shutil.copytree(root / "slides/engine", ready.path / "slides/engine")
    for number in range(10):
        link = f"[The next](deck{(number + 1) % 10}.md)"
        deck = DECK.replace("Note:", f"{link}\n\nNote:")
        ready.write(f"slides/deck{number}.md", deck)
    done = ready.run("build")
    assert done.returncode == 0, done.stderr
    site = ready.path / "_site"
    files = {path.name for path in site.iterdir() if path.is_file()}
    decks = {f"deck{number}.html" for number in range(10)}
    assert files == {".nojekyll", "index.html"} | decks
    assert 'href="deck1.html' in (site / "deck0.html").read_text()
    assert (site / "static/lib/reveal/reveal.js").exists()
    for page in site.glob("*.html"):
        text = page.read_text()
        assert "data-watch" not in text
        for name in re.findall(r'\b(?:src|href)="([^"#]+)', text):
            assert name.startswith("data:") or (site / name).exists(), name
    assert sorted(path.name for path in ready.path.glob("_site*")) == ["_site"]


def test_site_works_below_any_path_and_asks_no_other_host(ready, browser):
    assert ready.run("build").returncode == 0
    (ready.path / "_site").rename(ready.fakes / "lectures")
    handler = functools.partial(QuietHandler, directory=ready.fakes)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/lectures/"
        ours = (address, "data:", "blob:")
        troubles = []
        page = browser.new_page()
        page.on("request", lambda request: request.url.startswith(ours)
                or troubles.append(request.url))
        page.on("response", lambda answer: answer.status < 400
                or troubles.append(answer.url))
        page.on("console", lambda message: message.type == "error"
                and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(address)
        page.locator("a[href='cnn.html']").click()
        page.wait_for_function("() => window.Reveal?.isReady()")
        assert page.url.startswith(address + "cnn.html")
        page.close()
        server.shutdown()
    assert troubles == []


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("mistake", [
    "[Nothing](../code/nothing.py#Nothing)",
    "[Nothing](nothing.md)",
    "[Nothing](nothing.html)",
    "![Nothing](../static/img/nothing.svg)",
])
def test_build_with_a_mistake_names_it_and_keeps_the_earlier_site(ready, mistake):
    for deck in (ready.path / "slides").glob("*.md"):
        deck.unlink()
    ready.write("slides/good.md", DECK)
    (ready.path / "_site").mkdir()
    ready.write("_site/index.html", "earlier")
    ready.write("slides/bad.md", f"{DECK}\n<!--s-->\n\n## B\n\n{mistake}\n")
    line = DECK.count("\n") + 6
    done = ready.run("build")
    assert done.returncode == 1
    assert done.stderr.startswith(f"slides/bad.md:{line}: "), done.stderr
    assert "    at " not in done.stderr
    assert (ready.path / "_site/index.html").read_text() == "earlier"
    assert sorted(path.name for path in ready.path.glob("_site*")) == ["_site"]


def with_browser(checkout):
    """The settings that let a command find the Chromium of the tests."""
    chromium = (os.environ.get("CHROMIUM") or shutil.which("chromium")
                or shutil.which("google-chrome"))
    assert chromium, "there is no Chromium"
    return {"CHROME_PATH": chromium,
            "PATH": f"{checkout.fakes}/bin:{os.environ['PATH']}"}


def test_build_refuses_a_slide_that_has_no_room(ready):
    for deck in (ready.path / "slides").glob("*.md"):
        deck.unlink()
    bullets = "".join(f"- point {number}\n" for number in range(30))
    ready.write("slides/long.md", f"{DECK}\n<!--s-->\n\n## Long\n\n{bullets}")
    line = DECK.count("\n") + 4
    done = ready.run("build", **with_browser(ready))
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert len(said) == 2 and said[0].startswith(f"slides/long.md:{line}: "), said
    assert re.search(r": The slide has no room: “.*point 29” ends \d+ px too low",
                     said[0])
    assert not (ready.path / "_site").exists()
    done = ready.run("build")
    assert done.returncode == 0
    assert "No browser was found" in done.stderr


class Links(html.parser.HTMLParser):
    """Of a page: what its links lead to, by name, and its anchors."""

    def __init__(self, page):
        super().__init__()
        self.targets, self.anchors = [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        if tag == "a":
            self.targets.append((attributes.get("aria-label"), attributes["href"]))


def write_notebook(checkout, module, arguments=""):
    """Its hash is that of the module as it is now."""
    made = module_hash(checkout.path / f"code/{module}.py")
    (checkout.path / "out/notebooks").mkdir(parents=True, exist_ok=True)
    checkout.write(f"out/notebooks/{module}.ipynb", json.dumps(
        {"cells": [], "metadata": {"lab": {"hash": made, "arguments": arguments}}}))


def test_code_and_figures_lead_to_their_source_and_fresh_notebooks(ready):
    """Every code block of the lectures does; no stale or quick notebook is there."""
    write_notebook(ready, "lenet")
    write_notebook(ready, "resnet", "--quick")
    write_notebook(ready, "layers")
    with open(ready.path / "code/layers.py", "a") as module:
        module.write("\nx = 1\n")
    decks = list((ready.path / "slides").glob("*.md"))
    for deck in decks:
        deck.write_text(without_claims(deck.read_text()))
    done = ready.run("build")
    assert done.returncode == 0, done.stderr
    site = ready.path / "_site"
    pages = [site / f"{deck.stem}.html" for deck in decks]
    targets = [target for page in pages for target in Links(page).targets]
    opened = [href for label, href in targets
              if label and label.endswith("open at this line")]
    blocks = sum(page.read_text().count("data-module=") for page in pages)
    assert 20 < blocks == len(opened)
    for href in set(opened):
        page, _, anchor = href.partition("#")
        page = Links(site / page)
        assert anchor in page.anchors, href
        for _, target in page.targets:
            assert (site / "source" / target).exists(), target
    notebooks = {href for _, href in targets if href.endswith(".ipynb")}
    assert notebooks == {"notebooks/lenet.ipynb"}
    assert [path.name for path in (site / "notebooks").iterdir()] == ["lenet.ipynb"]
    for name in ["lenet", "layers"]:
        listing = (site / f"source/{name}.html").read_text()
        assert ("../notebooks/" in listing) == (name == "lenet")
    original = (ready.path / "code/lenet.py").read_bytes()
    assert (site / "source/lenet.py").read_bytes() == original


def without_claims(deck):
    """Without figures, numbers and proofs, which may be stale while someone edits."""
    deck = re.sub(r"^!\[.*$", "", deck, flags=re.M)
    return re.sub(r"\[([^]]*)\]\(\.\./(?:code/\w+\.py#facts\.|static/|tests/)"
                  r"(?:[^)\[]|\[[^]]*\])*\)", r"\1", deck)


# pdf -----------------------------------------------------------------------


HANDOUT_DECK = "slides/week 1/C# 100%.md"
HANDOUT = DECK + """
<!--s-->

## A picture

- one
- two <!-- .element: class="fragment" -->

```mermaid
flowchart LR
  x --> drawn
```
"""


@pytest.fixture
def handout(ready):
    """Makes the PDF of a small deck with the Chromium of the tests."""
    (ready.path / "slides/week 1").mkdir()
    ready.write(HANDOUT_DECK, HANDOUT)

    def handout(*arguments, **settings):
        return ready.run("pdf", HANDOUT_DECK, *arguments,
                         **{**with_browser(ready), **settings})

    return handout


def page_count(file):
    """The number of pages of a PDF, all 16:9."""
    pdf = file.read_bytes()
    assert pdf.startswith(b"%PDF") and b"%%EOF" in pdf[-8:]
    sizes = set(re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+ [\d.]+)\]", pdf))
    assert sizes == {b"960 540"}
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_handout_has_a_page_for_each_slide_and_notes_if_asked(ready, handout):
    done = handout()
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"out/pdf/week 1/C# 100%.pdf: 3 pages, [\d.]+ MiB\n", done.stdout)
    plain = ready.path / "out/pdf/week 1/C# 100%.pdf"
    assert page_count(plain) == 3
    assert os.listdir(plain.parent) == ["C# 100%.pdf"]
    done = handout("--notes", "--out", "notes.pdf", folder="out/pdf")
    assert done.stdout.startswith("notes.pdf: 4 pages"), done.stderr
    assert page_count(ready.path / "out/pdf/notes.pdf") == 4


def test_handout_that_cannot_be_made_is_one_line_and_the_earlier_stays(ready, handout):
    (ready.path / "out/pdf/week 1").mkdir(parents=True)
    ready.write("out/pdf/week 1/C# 100%.pdf", "earlier")
    (ready.path / "folder.pdf").mkdir()
    no_browser = {"CHROME_PATH": "", "PATH": str(ready.fakes / "bin")}
    for arguments, settings, message in [
        ([], no_browser, "none was found: no Chrome, Chromium or Edge"),
        ([], {"CHROME_PATH": "/nowhere"}, "There is no browser /nowhere: CHROME_PATH"),
        ([], {"CHROME_PATH": node}, f"{node} cannot be started: "),
        (["--out", "folder.pdf"], {}, "folder.pdf cannot be written: "),
    ]:
        done = handout(*arguments, **settings)
        assert done.returncode == 1 and done.stdout == ""
        assert message in done.stderr and len(done.stderr.splitlines()) == 1
    done = ready.run("pdf", "slides/none.md")
    assert done.returncode == 1
    assert done.stderr.startswith("There is no deck slides/none.md. The decks: slides/")
    assert ready.run("pdf").returncode == ready.run("pdf", "--colour").returncode == 2

    ready.write(HANDOUT_DECK, HANDOUT.replace("drawn\n", "drawn -->\n"))
    assert "A diagram cannot be drawn: " in handout().stderr
    ready.write(HANDOUT_DECK, HANDOUT + "\n[N](../code/nothing.py#Nothing)\n")
    done = handout()
    assert done.returncode == 1
    line = HANDOUT.count("\n") + 2
    assert done.stderr.startswith(f"{HANDOUT_DECK}:{line}: "), done.stderr
    assert done.stderr.splitlines()[1:] == ["No PDF is written: put that right first."]
    assert (ready.path / "out/pdf/week 1/C# 100%.pdf").read_text() == "earlier"


# notebooks -----------------------------------------------------------------


NOTEBOOK_MODULE = """
# %% [markdown]
# # Small

# %% Arguments
if __name__ == "__main__":
    import os
    print("here:", os.environ["OMP_WAIT_POLICY"], os.path.basename(os.getcwd()))
    LINE
"""


def test_notebooks_are_made_once_and_one_that_fails_stops_no_other(checkout):
    for module in (checkout.path / "code").glob("*.py"):
        module.unlink()
    notebooks = checkout.path / "out/notebooks"

    def write(**modules):
        for name, line in modules.items():
            checkout.write(f"code/{name}.py", NOTEBOOK_MODULE.replace("LINE", line))

    def make(*names, arguments=""):
        environment = {**os.environ, "LAB_ARGS": arguments,
                       "JUPYTER_DATA_DIR": str(checkout.fakes)}
        environment.pop("OMP_WAIT_POLICY", None)
        return subprocess.run(
            [sys.executable, "code/lab/notebooks.py", *names], cwd=checkout.path,
            env=environment, capture_output=True, text=True, timeout=100)

    write(one="pass", two="pass")
    done = make("one", arguments="--quick")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(notebooks) == ["one.ipynb"]
    notebook = json.loads((notebooks / "one.ipynb").read_text())
    assert notebook["metadata"]["lab"]["arguments"] == "--quick"
    assert "here: PASSIVE code\n" in json.dumps(notebook).replace("\\n", "\n")
    made = make()
    assert "running code/one.py" in made.stdout and "running code/two.py" in made.stdout
    assert make().stdout == "fresh: 2 of 2 notebooks\n"

    earlier = (notebooks / "one.ipynb").read_bytes()
    write(one="1 / 0", two="x = 1")
    done = make()
    assert done.returncode == 1
    assert done.stderr == (
        'one.py, cell "Arguments": ZeroDivisionError: division by zero\n')
    assert "wrote out/notebooks/two.ipynb" in done.stdout
    assert (notebooks / "one.ipynb").read_bytes() == earlier
    assert sorted(os.listdir(notebooks)) == ["one.ipynb", "two.ipynb"]

    write(one="os._exit(1)")
    assert make("one").stderr.startswith('one.py, cell "Arguments": its kernel died')
    done = make("three")
    assert done.returncode == 1
    assert done.stderr == "no module code/three.py; available: one, two\n"


# Without Node --------------------------------------------------------------


def test_requirements_are_installed_and_importable():
    """What a student gets from pip install -r requirements.txt."""
    modules = importlib.metadata.packages_distributions()
    for line in (root / "requirements.txt").read_text().split():
        name = re.match(r"[\w-]+", line)[0]
        assert importlib.metadata.version(name)
        provided = [module for module, names in modules.items() if name in names]
        assert any(importlib.util.find_spec(module) for module in provided), name


def test_npm_scripts_take_arguments():
    scripts = json.loads((root / "package.json").read_text())["scripts"]
    assert scripts["test"].endswith("-m pytest")
