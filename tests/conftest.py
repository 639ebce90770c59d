"""What all tests share: the environment, and what has passed in this run."""

import os
import runpy
import shutil
import signal
import sys
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

# Idle OpenMP threads would spin, and take the cores from all else that runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("LAB_ARGS", None)  # the tests' own arguments, never the user's

TESTS = Path(__file__).resolve().parent
BESIDE = TESTS.parents[1] / "shared" / "data"
REAL_DATA = Path(os.environ.get("LAB_DATA") or BESIDE)
real = pytest.mark.skipif(not os.environ.get("LAB_DATA") and not BESIDE.is_dir(),
                          reason="LAB_DATA is unset: there are no real data sets")
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"]


class Run:
    """This run of pytest.

    tests holds the ids of its tests, passed of those that have passed so far;
    is_whole says whether these are all there are; notes are printed at its end.
    """

    def __init__(self, config):
        self.tests, self.passed, self.notes = set(), set(), []
        folder, options = config.invocation_params.dir, config.option
        asked = {(folder / argument).resolve() for argument in config.args}
        self.is_whole = bool(asked & {TESTS, TESTS.parent}) and not (
            options.lf or options.ignore or options.ignore_glob)

    def pytest_deselected(self, items):
        self.is_whole = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        self.tests = {item.nodeid for item in items}
        items.sort(key=lambda item: item.get_closest_marker("last") is not None)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        elif report.failed:
            self.passed.discard(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter):
        if self.notes:
            terminalreporter.section("to know")
            for note in self.notes:
                terminalreporter.line(note)


def pytest_configure(config):
    config.pluginmanager.register(Run(config), "run")


@pytest.fixture(scope="session")
def run(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin("run")


@pytest.fixture(scope="session")
def copy_lectures(tmp_path_factory):
    """copy_lectures(): a new folder with the lectures, that a test may change."""
    def copied():
        copy = tmp_path_factory.mktemp("lectures").resolve()
        for folder in ["slides", "code", "static", "tests"]:
            shutil.copytree(TESTS.parent / folder, copy / folder)
        for file in ["reveal-md.json", "package.json"]:
            shutil.copy(TESTS.parent / file, copy)
        (copy / "node_modules").symlink_to(TESTS.parent / "node_modules")
        return copy

    return copied


@pytest.fixture(scope="session")
def browser():
    """Chromium: $CHROMIUM, the machine's own, or Playwright's; one for all tests."""
    from playwright.sync_api import sync_playwright

    program = (os.environ.get("CHROMIUM") or shutil.which("chromium")
               or shutil.which("google-chrome"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program,
                                             args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def web(tmp_path):
    """A web server for a folder; yields (folder, address)."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *args: None
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def listing(folder):
    """{path below folder: when it was changed}."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def one_line(error, *words):
    """An error has a message of one line with these words."""
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture(autouse=True)
def seed():
    """What a test draws is the same each time."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def script(monkeypatch):
    """script("resnet", "--quick"): what a module run as a script exits with."""
    from lab import runs

    monkeypatch.setattr(runs, "_current", None)
    handler = signal.getsignal(signal.SIGINT)

    def execute(module, *flags):
        path = str(TESTS.parent / f"code/{module}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, flags)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(path, run_name="__main__")
        return end.value.code

    yield execute
    signal.signal(signal.SIGINT, handler)
