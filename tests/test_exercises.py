"""Every exercise: what students get has no solution and fails, its source passes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from lab import UserError, exercises

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in exercises.EXERCISES.glob("*.py"))
REGION = re.compile(r" *### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?) *### END \1\n", re.S)
every_exercise = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Where exercises are made in this test."""
    monkeypatch.setattr(exercises, "ROOT", tmp_path)
    monkeypatch.setattr(exercises, "MADE", tmp_path / "made")
    return tmp_path / "made"


def text(name):
    return (exercises.EXERCISES / f"{name}.py").read_text("utf-8")


def run(script, **environment):
    return subprocess.run(
        [sys.executable, script], capture_output=True, text=True, encoding="utf-8",
        cwd=script.parent, env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment)


@every_exercise
def test_no_solution_and_no_hidden_test_is_given_away(name, made):
    source = text(name)
    hidden = [region for _, region in REGION.findall(source)]
    answers = [cell.source for cell in exercises.source(
        exercises.EXERCISES / f"{name}.py").cells if cell.cell_type == "markdown"
        and cell.metadata.get("nbgrader", {}).get("solution")]
    lines = {line.strip(" #") for region in hidden + answers
             for line in region.splitlines()}
    lines -= {line.strip(" #") for line in REGION.sub("", source).splitlines()
              } - {line.strip() for answer in answers for line in answer.splitlines()}
    assert len(hidden) > 3 and lines
    folder = exercises.make(exercises.EXERCISES / f"{name}.py")
    script = (folder / f"{name}.py").read_text("utf-8")
    cells = nbformat.read(folder / f"{name}.ipynb", as_version=4).cells
    for given in [script, "\n".join(cell.source for cell in cells)]:
        assert not lines & {line.strip(" #") for line in given.splitlines()}
        assert "BEGIN" not in given and "SOLUTION" not in given


@every_exercise
def test_the_unsolved_version_fails_every_check(name, made):
    """Also where the terminal has no more than ASCII."""
    folder = exercises.make(exercises.EXERCISES / f"{name}.py")
    done = run(folder / f"{name}.py", PYTHONPATH="", PYTHONIOENCODING="ascii")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    *said, total = done.stdout.splitlines()
    assert total.startswith("0 of ")
    checks = [cell for cell in exercises.source(
        exercises.EXERCISES / f"{name}.py").cells if cell.metadata.get(
        "nbgrader", {}).get("grade") and not cell.metadata.nbgrader.solution]
    assert len(said) >= len(checks) > 0 and all(line.startswith("no ") for line in said)


@every_exercise
@pytest.mark.timeout(900)   # one of them trains
def test_the_solved_source_passes_every_check(name):
    done = run(exercises.EXERCISES / f"{name}.py", PYTHONPATH=str(ROOT / "code"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout


@every_exercise
def test_what_the_header_says(name):
    header = jupytext.read(exercises.EXERCISES / f"{name}.py").cells[0].source
    for word in ["**Goal**", "**Time**", "**Points**", "**Hand in**"]:
        assert word in header
    total = sum(exercises.points(exercises.source(
        exercises.EXERCISES / f"{name}.py")).values())
    assert f"**Points**: {total:g}" in header
    assert "60 to 90 minutes" in header
    parts = re.findall(r"^# ## \d.*\((\d+) points?\b", text(name), re.M)
    assert sum(map(int, parts)) == total


@every_exercise
def test_lines_fit(name):
    assert max(map(len, text(name).splitlines())) <= 88


@every_exercise
def test_the_notebook_is_nbgraders(name, made):
    folder = exercises.make(exercises.EXERCISES / f"{name}.py")
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    exercises.processed(notebook, exercises.CheckCellMetadata)
    script = jupytext.read(folder / f"{name}.py")
    assert [cell.source for cell in script.cells] == [
        cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("locked"):
            assert cell.metadata.editable is False
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_work_is_never_overwritten(made):
    folder = exercises.make(exercises.EXERCISES / "convolution.py")
    exercises.make(exercises.EXERCISES / "convolution.py")
    with (folder / "convolution.py").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(UserError) as raised:
        exercises.make(exercises.EXERCISES / "convolution.py")
    assert "convolution.py was worked on" in str(raised.value)
    assert (folder / "convolution.py").read_text("utf-8").endswith("# mine\n")


def test_a_mistake_in_a_source_is_one_line(tmp_path):
    path = tmp_path / "twice.py"
    path.write_text('# %% nbgrader={"grade_id": "a", "solution": true}\nx = 1\n'
                    '# %% nbgrader={"grade_id": "a", "points": 2}\nassert x\n')
    with pytest.raises(UserError) as raised:
        exercises.source(path)
    assert str(raised.value).startswith("twice.py: ")


def test_commands():
    done = subprocess.run([sys.executable, ROOT / "code/lab/exercises.py", "nothing"],
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("no exercise code/exercises/nothing.py; ")


def test_a_student_needs_only_what_is_in_the_folder(made, tmp_path):
    """Solved there, away from this repository, it passes what can be seen."""
    folder = exercises.make(exercises.EXERCISES / "convolution.py")
    away = tmp_path / "away"
    shutil.copytree(folder, away)
    solved = re.sub(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n", "",
                    text("convolution"), flags=re.S)
    (away / "convolution.py").write_text(solved, "utf-8")
    done = run(away / "convolution.py", PYTHONPATH="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((folder / ".made.json").read_text())
