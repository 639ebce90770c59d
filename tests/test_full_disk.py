"""Where a file cannot be written: one line says so, and what was there stays."""

import contextlib
import gzip
import hashlib
import io
import types
from pathlib import Path

import pytest
import torch

from conftest import listing, one_line
from lab import (
    UserError,
    data,
    exercises,
    figures,
    files,
    live,
    results,
    runs,
    training,
)

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def full_disk():
    """Files end after 100 bytes; what is printed may go to one, too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of code/toy.py that writes to tmp_path/out."""
    args = types.SimpleNamespace(
        data="digits", out=tmp_path / "out", seed=0,
        device=torch.device("cpu"), resume=False)
    monkeypatch.setattr(runs, "_current", None)
    (tmp_path / "toy.py").write_text("import torch\n")
    runs.begin(args, "demo", tmp_path / "toy.py", "python code/toy.py")
    return args


def checkpoint(args):
    model = torch.nn.Linear(9, 9)
    runs.current().checkpoints.clear()
    training.Checkpoint("toy", {"model": model}, args).save({"seconds": [1.0]}, None)


def record(args):
    results.save({"parameters": 5})


def figure(args):
    figure, axes = figures.panels()
    axes[0].plot([1, 2])
    figures.save(figure, "toy")


def download(args):
    files.fetch(lambda folder: (folder / "set").write_bytes(bytes(1000)), "toy",
                args.out / "data", [Path("set")])


def unpacking(args):
    kind = types.SimpleNamespace(__name__="Toy", resources=[
        ("images.gz", hashlib.md5(PACKED).hexdigest())])
    data._idx(kind, "toy", "01", args.out / "data", None)


def exercise(args):
    exercises.make(exercises.EXERCISES / "convolution.py")


PACKED = gzip.compress(bytes(10_000), mtime=0)
WRITERS = [checkpoint, record, figure, download, unpacking, exercise]


@pytest.fixture
def place(tmp_path, run, monkeypatch):
    """Where all of them write, with files of an earlier time."""
    monkeypatch.setattr(exercises, "MADE", tmp_path / "out")
    monkeypatch.setattr(exercises, "ROOT", tmp_path)
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "given"))
    given = tmp_path / "given/Toy/raw"
    given.mkdir(parents=True)
    (given / "images.gz").write_bytes(PACKED)
    return tmp_path


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(write, place, run):
    if write not in (download, unpacking):  # these write nothing twice
        write(run)
    before = listing(place)
    with full_disk(), pytest.raises(UserError) as error:
        write(run)
    one_line(error, str(place), "cannot be written", "File too large")
    kept = {path: date for path, date in listing(place).items() if path.is_file()}
    assert kept == {path: date for path, date in before.items() if path.is_file()}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_file_where_a_folder_should_be(write, place, run):
    run.out.write_text("mine")
    with pytest.raises(UserError) as error:
        write(run)
    one_line(error, str(run.out))
    assert run.out.read_text() == "mine"


def test_a_name_that_is_too_long(run):
    figure, _ = figures.panels()
    with pytest.raises(UserError) as error:
        figures.save(figure, "x" * 250)
    one_line(error, "cannot be written", "File name too long")


def test_a_copy_of_an_edit(tmp_path, monkeypatch):
    """On a slide it is a sentence."""
    module = types.SimpleNamespace(
        edits={}, refresh=lambda: None, with_edits=lambda edits: ["x" * 1000])
    monkeypatch.setattr(live, "_module", lambda name: module)
    monkeypatch.setattr(live.cli, "ROOT", tmp_path)
    with full_disk():
        said = live.save("toy", "f", "text", "mine")["text/plain"]
    assert said.endswith("out/live/mine.py cannot be written: File too large")
    assert not list((tmp_path / "out/live").iterdir())
