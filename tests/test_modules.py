"""What every module of code/ must do: a new one is tested by being there."""

import importlib
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from declared import MODULES, ROOT, cases, facts, problem, settings
from forks import Forks
from lab import refresh, results

FIGURES = sorted(file for file in ROOT.glob("static/img/*.*")
                 if not file.name.endswith(".dark.svg"))
# Each module's line: what it has loaded, and what of the process it has changed.
IMPORT = """
import importlib, json, os, random, sys, threading
import numpy, torch
def state():
    return {"random": random.getstate(), "numpy": numpy.random.get_state()[1].tolist(),
            "torch": torch.get_rng_state().tolist(), "threads": torch.get_num_threads(),
            "type": str(torch.get_default_dtype()), "tasks": threading.active_count(),
            "files": [(file.path, file.stat().st_mtime_ns) for folder in sys.argv[1:4]
                      for file in os.scandir(folder)]}
for name in sys.argv[4:]:
    before, modules = state(), set(sys.modules)
    importlib.import_module(name)
    after = state()
    changed = [key for key in before if before[key] != after[key]]
    print(json.dumps([name, sorted(set(sys.modules) - modules), changed]), flush=True)
"""

every_module = pytest.mark.parametrize("name", MODULES)
every_case = pytest.mark.parametrize("case", [
    pytest.param(case, id=f"{name}.{key}") for name, key, case in cases()])


def source(name):
    return (ROOT / f"code/{name}.py").read_text("utf-8")


def files(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns
            for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy of code/ in which it shows if a run writes where it should not."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "code", root / "code",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (root / "static").mkdir()
    (root / "static/fonts").symlink_to(ROOT / "static/fonts")
    (root / "papers").symlink_to(ROOT / "papers")
    (root / "matplotlibrc").write_text("text.usetex: True\nno.such.key: 1\n")
    return root


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


# Import


def test_imports_have_no_side_effects(tmp_path):
    """Nothing written, printed, seeded or started; nothing slow but torch loaded.

    One process imports all modules, one after another; the first that fails is named.
    """
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, tmp_path, ROOT / "static/img",
         ROOT / "static/results", *MODULES],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "code"),
             "PYTHONDONTWRITEBYTECODE": "1"})
    known = {*MODULES, "lab", "torch", "einops", *sys.stdlib_module_names}
    lines = done.stdout.splitlines()
    for name, line in zip_longest(MODULES, lines):
        assert line and line.startswith(f'["{name}", '), f"{name} prints {line}"
        _, loaded, changed = json.loads(line)
        assert not changed, f"{name} changes {changed}"
        foreign = {module.partition(".")[0] for module in loaded} - known
        assert not foreign, f"{name} loads {foreign}"
        slow = {"torch._dynamo", "torch._inductor"} & set(loaded)
        assert not slow, f"{name} loads {slow}"


# Runs


@every_module
def test_quick_run(name, project, forks):
    """On a terminal without our characters, with settings that end others' programs.

    It writes and names its record and its figures, none of them empty, nothing else.
    """
    before, out = files(project), project.parent / f"{project.name}-{name}"
    done = forks.script(f"code/{name}.py", "--quick", "--out", out, cwd=project,
                        PYTHONIOENCODING="ascii", MPLBACKEND="nonsense")
    assert done.returncode == 0, done.stderr
    assert not re.search("Traceback|Warning", done.stderr), done.stderr
    assert files(project) == before
    record = out / "results" / f"{name}.json"
    drawn = refresh.drawn(ROOT / f"code/{name}.py")
    figures = [out / "img" / figure for figure in drawn]
    for path in [record, *figures]:
        assert path.exists()
        assert re.search(rf"^wrote .*{path.name.replace('.dark', '')}$", done.stdout,
                         re.M), f"it does not say that it wrote {path.name}"
    entries = json.loads(record.read_text())
    assert entries.keys() == {"facts", "settings", "demo"}
    for value in entries["demo"]["values"].values():
        assert isinstance(value, (int, float)) and math.isfinite(value)
    for figure in figures:
        assert blank(figure) is None, blank(figure)
    precomputed, made = forks.trainings
    if precomputed:
        assert precomputed == made, "precompute() has other trainings than the cells"


@every_module
def test_notebook(name, project, forks):
    """As a notebook it runs, shows its figures and writes nothing."""
    before = files(project)
    cells = [cell.source for cell in notebook(name).cells if cell.cell_type == "code"]
    done = forks.cells(cells, cwd=project / "code", LAB_ARGS="--quick")
    assert done.returncode == 0, done.stderr
    assert files(project) == before
    shown = [metadata.get("figure") for metadata in
             json.loads(done.stdout.splitlines()[-1])]
    assert len(shown) >= source(name).count("figures.save(") > 0
    drawn = {Path(file).stem for file in refresh.drawn(ROOT / f"code/{name}.py")
             if ".dark." not in file}
    assert drawn <= set(shown)


def notebook(name):
    import jupytext
    return jupytext.read(ROOT / f"code/{name}.py")


def test_notebook_in_a_kernel(project, monkeypatch):
    """As in Jupyter: one module for all."""
    import nbclient
    monkeypatch.setenv("LAB_ARGS", "--quick")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(project))  # no kernels of the user's
    before, lenet = files(project), notebook("lenet")
    nbclient.NotebookClient(
        lenet, kernel_name="python3", timeout=120,
        resources={"metadata": {"path": str(project / "code")}}).execute()
    assert files(project) == before
    shown = [output for cell in lenet.cells for output in cell.get("outputs", [])
             if output.output_type == "display_data"]
    assert len(shown) >= source("lenet").count("figures.save(") > 0


@every_module
def test_bad_arguments(name, script, capsys):
    """They end the script with status 2 and one line that names them."""
    flags = {field.name for field in fields(importlib.import_module(name).Settings)}
    for flag, value in [("data", "nonsense"), ("epochs", "0"), ("image", "no.jpg")]:
        if flag in flags:
            assert script(name, f"--{flag}", value) == 2
            printed = capsys.readouterr()
            line, = printed.err.splitlines()
            assert line.startswith(f"python code/{name}.py: ")
            assert f"--{flag}" in line and value in line and not printed.out


@pytest.mark.parametrize("name, flag, value", [
    pytest.param(*case, id=" ".join(case)) for case in [
        ("resnet", "--depths", "21"), ("googlenet", "--size", "8"),
        ("googlenet", "--width", "0.124"), ("inception", "--stride", "3"),
        ("convnext", "--size", "8"), ("convnext", "--width", "3"),
        ("grad_cam", "--size", "7"), ("normalization", "--few", "1401"),
        ("vit", "--patch-size", "1"), ("vit", "--size", "15"),
        ("vit", "--hidden-dim", "33"), ("multi_head", "--width", "6"),
        ("attention", "--shortest", "11"), ("attention", "--longest", "27"),
        ("transformer", "--d-model", "12"),
        ("bert", "--width", "49"), ("bert", "--gaps", "none")]])
def test_settings_that_cannot_work(name, flag, value, script, capsys):
    """They are refused in one line before anything is computed."""
    assert script(name, flag, value) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python code/{name}.py: ") and flag in line
    assert value in line


# Models


def untested(name):
    """What is missing of a module's test file, in one line, or None."""
    if line := problem(name):
        return line
    models = {value for key, value in inspect.getmembers(
        importlib.import_module(name), inspect.isclass)
        if issubclass(value, nn.Module) and value.__module__ == name
        and not key.startswith("_")}
    missing = models - {type(part) for module, _, case in cases() if module == name
                        for part in case.build().modules()}
    names = ", ".join(sorted(model.__name__ for model in missing))
    return f"no model of CASES in tests/test_{name}.py has {names}" if names else None


@every_module
def test_every_model_has_a_case(name):
    if line := untested(name):
        pytest.fail(line, pytrace=False)


def test_a_model_without_a_case_is_named(tmp_path, monkeypatch):
    """So are a test file that is missing, and one that cannot be imported."""
    (tmp_path / "toy.py").write_text(
        "from torch import nn\nclass Head(nn.Linear):\n    pass\n"
        "class Body(nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("declared.MODULES", ["toy"])
    tests = tmp_path / "test_toy.py"
    for text, line in [
            (None, "tests/test_toy.py is missing: it tests code/toy.py and declares "
                   "its CASES"),
            ("import toy\n1 / 0", "tests/test_toy.py cannot be imported: "
                                  "ZeroDivisionError: division by zero"),
            ("", "no model of CASES in tests/test_toy.py has Body, Head"),
            ("import toy\nfrom declared import Case\n"
             "CASES = {'Head': Case(lambda: toy.Head(1, 1), None)}",
             "no model of CASES in tests/test_toy.py has Body")]:
        if text is not None:
            tests.write_text(text)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "test_toy", raising=False)
        assert untested("toy") == line
    sys.modules.pop("toy")


@every_case
def test_every_parameter_gets_a_gradient(case):
    torch.manual_seed(0)
    model, (inputs, target) = case.build(), case.batch()
    case.loss(model(*inputs), target).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@every_case
def test_overfits_one_batch(case):
    """At one of two rates: at the larger one a network without norms may die."""
    losses = overfit(case, lr=0.003)
    if losses[-1] > 0.1 * losses[0]:
        losses = overfit(case, lr=0.001)
    assert losses[-1] <= 0.1 * losses[0], losses[::20]


def overfit(case, lr):
    """The losses of at most 200 steps, until a tenth of the first is reached."""
    torch.manual_seed(0)
    model, (inputs, target) = case.build(), case.batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    losses = []
    while len(losses) < 200 and (not losses or losses[-1] > 0.1 * losses[0]):
        loss = case.loss(model(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@every_case
def test_evaluation_is_deterministic(case):
    """Twice the same output, and nothing in the model moves."""
    torch.manual_seed(0)
    model, (inputs, _) = case.build().eval(), case.batch()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs), model(*inputs), rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


# What is committed


@every_module
def test_facts(name):
    """Numbers, and those that the slides show: static/results has the same."""
    for key, value in facts(name).items():
        assert isinstance(value, (int, float)) and math.isfinite(value), key
    recorded = results.read(ROOT / f"static/results/{name}.json")
    for key, computed in [("facts", facts(name)), ("settings", settings(name))]:
        if recorded.get(key, {}).get("values") != computed:
            pytest.fail(f"{key}: run npm run figures -- {name}", pytrace=False)


@every_module
def test_default_figures_and_records_are_fresh(name):
    if stale := refresh.stale(ROOT / f"code/{name}.py"):
        pytest.fail(f"run npm run figures -- {name}: {', '.join(stale)}", pytrace=False)


@every_module
def test_no_figure_outlives_its_code(name):
    if files := refresh.undrawn(ROOT / f"code/{name}.py"):
        pytest.fail(f"delete {' '.join(files)}: code/{name}.py draws them no more",
                    pytrace=False)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda path: path.name)
def test_figure(figure):
    """Drawn by a module that is there, in both palettes, and not blank."""
    variants = [figure]
    if figure.suffix == ".svg":
        variants.append(figure.with_suffix(".dark.svg"))
        drawings = [ElementTree.parse(file) for file in variants]
        light, dark = ([element.tag for element in drawing.iter()]
                       for drawing in drawings)
        assert light == dark, "the dark variant is another drawing"
        assert figure.read_text() != variants[1].read_text()
        for drawing in drawings:
            assert empty_part(drawing) is None, empty_part(drawing)
    else:
        assert blank(figure) is None, blank(figure)
    for file in variants:
        origin = refresh.provenance(file)
        assert origin.keys() == {"module", "run", "hash", "command", "seed", "data",
                                 "versions", "date"}
        assert origin["module"] in MODULES, f"delete {file.name}: its module is gone"


def test_every_dark_figure_has_a_light_one():
    light = {file.with_suffix(".dark.svg") for file in FIGURES}
    assert {*ROOT.glob("static/img/*.dark.svg")} <= light


def test_an_empty_panel_is_found(tmp_path):
    from lab import figures
    figure, axes = figures.panels(2, ylabel="error", titles=["plain", "residual"])
    file = tmp_path / "figure.svg"
    for axis, found in [(axes[0], "axes_1"), (axes[1], "axes_2")]:
        figure.savefig(file)
        assert found in blank(file)
        axis.plot([3, 2, 1])
    figure.savefig(file)
    assert blank(file) is None


def blank(figure):
    """Why a figure shows nothing, or None."""
    if figure.suffix == ".svg":
        return empty_part(ElementTree.parse(figure))
    from PIL import Image
    with Image.open(figure) as picture:
        tones = len(set(picture.convert("L").tobytes()))
    return f"{figure.name} has {tones} tones" if tones < 16 else None


def empty_part(drawing):
    """What is empty of an SVG, or None.

    It must have marks beside its text, axes and frames, and so must each of its
    panels that has ticks.
    """
    panels = [element for element in drawing.iter()
              if element.get("id", "").startswith("axes_")]
    marks = 0
    for panel in panels:
        background, *parts = panel
        axes = [part for part in parts
                if part.get("id", "").startswith("matplotlib.axis_")]
        found = sum(paints(element) for part in parts if part not in axes
                    and not part.get("id", "").startswith("text_")
                    for element in part.iter())
        if any(len(axis) for axis in axes) and not found:
            return f"{panel.get('id')} is empty"
        marks += found
    return None if marks else "the figure is empty"


def paints(element):
    """Whether an SVG element leaves a mark: a frame's straight edge does not count."""
    kind = element.tag.rpartition("}")[2]
    if kind in ("use", "image"):
        return True
    points = set(re.findall(r"[-\d.]+ [-\d.]+", element.get("d", "")))
    straight = element.get("d", "").count("L") <= 1 and "C" not in element.get("d", "")
    return kind == "path" and len(points) > 1 and not straight
