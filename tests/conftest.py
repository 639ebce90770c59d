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

import proofs

# Idle OpenMP threads would spin, and take the cores from all else that runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers have two cores
os.environ.pop("LAB_ARGS", None)  # the tests' own arguments, never the user's

TESTS = Path(__file__).resolve().parent
BESIDE = TESTS.parents[1] / "shared" / "data"
REAL_DATA = Path(os.environ.get("LAB_DATA") or BESIDE)
real = pytest.mark.skipif(not os.environ.get("LAB_DATA") and not BESIDE.is_dir(),
                          reason="LAB_DATA is unset: there are no real data sets")
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"]


# Files whose tests start kernels, browsers or sandboxes: on two workers they run one
# after another, so that none of them meets another.
PROGRAMS = {f"test_{name}.py" for name in (
    "browser", "foreign_pages", "grade", "live", "live_browser", "live_server",
    "review", "sandbox", "site", "submissions", "tampering")}
# What `--module` looks at beside the module's own file.
GENERIC = ["test_decks.py", "test_modules.py", "test_parity.py", "test_readme.py",
           "test_style.py"]


class Run:
    """This run of pytest: all tests have to pass that a whole run finds on slides.

    is_whole says whether it has all tests; notes are printed at its end. Where workers
    run the tests, this is the one that hears of them all.
    """

    def __init__(self, config):
        self.tests, self.passed, self.notes, self.unproven = set(), set(), [], []
        self.is_whole = is_whole(config)

    def pytest_collection_modifyitems(self, items):
        self.tests = {item.nodeid for item in items}

    def pytest_xdist_node_collection_finished(self, ids):
        self.tests = set(ids)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        elif report.failed:
            self.passed.discard(report.nodeid)
        if report.when == "teardown":
            self.notes += [text for key, text in report.user_properties
                           if key == "note"]

    def pytest_sessionfinish(self, session):
        if self.is_whole and not session.config.option.collectonly:
            self.unproven = proofs.unproven(self.tests, self.passed)
            if self.unproven:
                session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for title, lines in [("to know", self.notes),
                             ("proofs on slides that did not pass", self.unproven)]:
            if lines:
                terminalreporter.section(title)
                terminalreporter.write_line("\n".join(lines))


def is_whole(config):
    """Whether this run has all tests."""
    folder, options = config.invocation_params.dir, config.option
    asked = {(folder / argument).resolve() for argument in config.args}
    return bool(asked & {TESTS, TESTS.parent}) and not (
        options.lf or options.ignore or options.ignore_glob or options.deselect
        or options.keyword or options.markexpr or options.module)


def pytest_addoption(parser):
    parser.addoption("--module", metavar="NAME", help="only what tests code/NAME.py: "
                     "its own tests, what every module must do, its slides")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """A whole run takes two workers: one has the programs, the other what computes."""
    name = config.option.module
    modules = sorted(path.stem for path in TESTS.parent.glob("code/*.py"))
    if name and name not in modules:
        raise pytest.UsageError(f"no module '{name}'; available: {', '.join(modules)}")
    is_worker = hasattr(config, "workerinput")  # which has no workers of its own
    if is_whole(config) and config.option.numprocesses is None and not is_worker:
        config.option.numprocesses = min(2, os.cpu_count())


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Run(config), "run")


def pytest_ignore_collect(collection_path, config):
    name = config.option.module
    is_other = name and collection_path.suffix == ".py" and (
        collection_path.name not in [f"test_{name}.py", *GENERIC])
    return True if is_other else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Style before any training; programs, as they take longest; then the rest.

    Of a module only what is about it.
    """
    items.sort(key=lambda item: (item.path.name != "test_style.py",
                                 item.path.name not in PROGRAMS))
    if config.option.module:
        left_out = [item for item in items if not is_about(item, config.option.module)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def is_about(item, name):
    """Whether a test looks at a module: by its file, name, figure or deck."""
    if item.path.name == f"test_{name}.py":
        return True
    values = item.callspec.params if hasattr(item, "callspec") else {}
    return bool(values) and (
        name in (values.get("name"), values.get("module"))
        or item.callspec.id.startswith((f"{name}.", name.replace("_", "-") + "-"))
        or values.get("deck") in proofs.decks_of(name))


def pytest_xdist_make_scheduler(config, log):
    """A file's tests on one worker, and those of all programs."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = Path(nodeid.partition("::")[0]).name
            return "programs" if file in PROGRAMS else file

    config.option.loadscopereorder = False
    return Scheduler(config, log)


@pytest.fixture(scope="session")
def copy_lectures(tmp_path_factory):
    """copy_lectures(): a new folder with the lectures, that a test may change."""
    def copied():
        copy = tmp_path_factory.mktemp("lectures").resolve()
        for folder in ["slides", "code", "papers", "static", "tests"]:
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
