"""What all tests share: the environment, workers, and what has passed in this run."""

import json
import os
import shutil
import subprocess
import threading
from functools import cache, partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

# Idle OpenMP threads would spin, and take the cores from all else that runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side
os.environ.pop("LAB_ARGS", None)  # the tests' own arguments, never the user's

TESTS = Path(__file__).resolve().parent
BESIDE = TESTS.parents[1] / "shared" / "data"
REAL_DATA = Path(os.environ.get("LAB_DATA") or BESIDE)
real = pytest.mark.skipif(not os.environ.get("LAB_DATA") and not BESIDE.is_dir(),
                          reason="LAB_DATA is unset: there are no real data sets")
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"]


# Tests of these files start kernels, browsers, sandboxes or servers, which would take
# the cores from each other: one worker runs them all.
STARTS_PROGRAMS = [
    "test_grade", "test_live_browser", "test_commands", "test_browser",
    "test_tampering", "test_sandbox", "test_submissions", "test_review",
    "test_exercises", "test_live", "test_live_server", "test_foreign_pages",
    "test_site", "test_checks", "test_node"]
GROUPS = [*STARTS_PROGRAMS, "test_modules", "test_parity"]  # the longest first


def asks_for_all(config):
    """Whether this run of pytest was asked for all tests, and for no choice of them."""
    asked = {(config.invocation_params.dir / words).resolve() for words in config.args}
    choice = ["lf", "ignore", "ignore_glob", "collectonly", "keyword", "markexpr",
              "deselect"]
    return bool(asked & {TESTS, TESTS.parent}) and not any(
        config.getoption(option, None) for option in choice)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Two for all tests; for a few of them a start of two would take longer."""
    return 2 if asks_for_all(config) else 0


class Run:
    """This run of pytest, which may be spread over two workers.

    tests holds the ids of its tests, passed of those that have passed so far;
    is_whole says whether these are all there are; notes are printed at its end.
    """

    def __init__(self, config):
        self.tests, self.passed, self.notes = set(), set(), []
        self.unproven = []
        self.output = getattr(config, "workeroutput", None)  # None but in a worker
        self.is_whole = asks_for_all(config)

    def pytest_deselected(self, items):
        self.is_whole = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        """Say which tests share a worker, before pytest-xdist puts that into ids."""
        self.tests = {item.nodeid for item in items}
        for item in items:
            file = item.path.stem
            group = "programs" if file in STARTS_PROGRAMS else file
            item.add_marker(pytest.mark.xdist_group(group))
        items.sort(key=lambda item: GROUPS.index(item.path.stem)
                   if item.path.stem in GROUPS else len(GROUPS))

    def pytest_runtest_logreport(self, report):
        test = report.nodeid.rpartition("@")[0] or report.nodeid  # without its group
        if report.when == "call" and report.passed:
            self.passed.add(test)
        elif report.failed:
            self.passed.discard(test)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Take over what a worker knows."""
        told = getattr(node, "workeroutput", {})
        self.notes += told.get("notes", [])
        self.tests |= set(told.get("tests", []))
        self.is_whole &= told.get("is_whole", True)

    def pytest_sessionfinish(self, session):
        """Fail a run of all tests in which one that a deck cites did not pass."""
        if self.output is not None:
            self.output.update(notes=self.notes, is_whole=self.is_whole,
                               tests=sorted(self.tests))
        elif self.is_whole:
            self.unproven = unproven(proofs(), self.tests, self.passed)
            if self.unproven:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for title, lines in [("to know", self.notes), ("unproven", self.unproven)]:
            if lines:
                terminalreporter.section(title)
                for line in lines:
                    terminalreporter.line(line)


def pytest_configure(config):
    config.pluginmanager.register(Run(config), "run")


@pytest.fixture(scope="session")
def run(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin("run")


@cache
def references():
    """All references of all decks, as the deck engine resolves them."""
    done = subprocess.run(["node", "slides/engine/references.mjs", "--json"],
                          cwd=TESTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def place(reference):
    return "{deck}:{line}".format(**reference)


def proofs():
    """The references of all decks to tests."""
    return [each for each in references() if each["kind"] == "proof" and each["ok"]]


def unproven(proofs, tests, passed):
    """What is wrong with these proofs, one line each, if these tests have passed."""
    wrong = []
    for proof in proofs:
        cited = {test for test in tests  # without parameters it stands for all of them
                 if test == proof["target"] or test.startswith(f"{proof['target']}[")}
        if not cited:
            wrong.append(f"{place(proof)}: there is no test {proof['target']}")
        wrong += [f"{place(proof)}: {test} did not pass in this run"
                  for test in sorted(cited - passed)]
    return wrong


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


def assert_same(ours, reference, what):
    """Equal but for rounding: 1e-5 of the largest value, which is not zero."""
    scale = reference.abs().max()
    assert scale > 0, what
    assert (ours - reference).abs().max() <= 1e-5 * scale, what
