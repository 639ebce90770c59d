"""npm run grade: from submissions to grades, and what attacks the grader."""

import csv
import os
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
import torch
from nbgrader.api import Gradebook

from hostile import EXERCISE, HONEST, HOSTILE, SQUARE, attack
from lab import UserError, exercises, grade, sandbox, verdicts

ROOT = Path(__file__).resolve().parents[1]

linux = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")


# A course with one small exercise ------------------------------------------------


class Toy:
    """Grades submissions of the small exercise."""

    def __init__(self, folder, monkeypatch):
        self.handed_in, self.out = folder / "week", folder / "grades" / "week"
        self.source = folder / "exercises" / "toy.py"
        self.source.parent.mkdir()
        self.source.write_text(EXERCISE, "utf-8")
        self.args = types.SimpleNamespace(cell_seconds=20, seconds=90, jobs=2,
                                          unsafe=False)
        monkeypatch.setattr(exercises, "EXERCISES", self.source.parent)
        monkeypatch.setattr(grade, "GRADES", folder / "grades")
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "code"))
        monkeypatch.setenv("PATH", os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ["PATH"]]))

    def hand_in(self, student, content, name="toy.py"):
        path = self.handed_in / student / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")

    def grade(self):
        return grade.grade_folder(self.handed_in, self.args)

    def points(self, student):
        with Gradebook(f"sqlite:///{self.out / 'gradebook.db'}") as book:
            return tuple(book.find_grade(f"{name}-checks", "toy", "toy", student).score
                         for name in ["double", "square"])

    def table(self, name):
        with (self.out / f"{name}.csv").open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))

    def review(self, **changes):
        """Fill these columns of the only line of review.csv for a student."""
        rows = self.table("review")
        student = changes.pop("student")
        next(row for row in rows if row["student"] == student).update(changes)
        with (self.out / "review.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, grade.REVIEW)
            writer.writeheader()
            writer.writerows(rows)

    def page(self, student):
        return (self.out / "feedback" / f"{student}.html").read_text("utf-8")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    return Toy(tmp_path, monkeypatch)


@linux
@pytest.mark.timeout(600)
def test_honest_work_gets_its_points(toy):
    for student, (name, content, _) in HONEST.items():
        toy.hand_in(student, content, name)
    notebook = exercises.source(toy.source)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") in ("double", "square"):
            cell.outputs = [nbformat.v4.new_output("stream", text="seen")]
    toy.hand_in("notebook", nbformat.writes(notebook), "toy.ipynb")
    toy.grade()
    assert {student: toy.points(student) for student in [*HONEST, "notebook"]} == {
        student: points for student, (*_, points) in HONEST.items()} | {
        "notebook": (2, 2)}
    grades = {row["student"]: row for row in toy.table("grades")}
    assert grades["right"]["score"] == "4" and grades["right"]["max_score"] == "5"
    assert "square(tensor[3]) is wrong by up to" not in toy.page("wrong")
    assert "square(tensor[2]) is wrong by up to" in toy.page("wrong")
    assert "1234.5" not in toy.page("wrong")
    review = {row["student"]: row for row in toy.table("review")}
    assert set(review) == {"notebook", "without_marks"}
    assert review["notebook"]["why"] == "written: needs points from a human"


# One attack of each mechanism, and what review.csv says of it; of what a plain check
# fails and what harms nothing it says nothing. That the checks resist the others is for
# test_tampering.py, that a kernel is ended by its limits for test_sandbox.py.
MECHANISMS = {
    "endless": "took too long", "unstoppable": "", "gigabyte": "printed more than",
    "one_gigabyte": "", "forks": "", "memory": "of memory",
    "exit": "ended its own process", "kill_all": None,
    "edited_checks": "was edited", "deleted_checks": "missing: square-checks",
    "reads": "quotes hidden tests", "invalid": "not valid Python",
    "not_a_notebook": "cannot be read", "deep_json": "",
    "patches_checks": "was changed", "transformer": "IPython was given a hook",
    "other_checks": "a check that must fail has passed", "fills_disk": None,
    "network": None,
}


@linux
@pytest.mark.timeout(900)
def test_an_attack_costs_only_its_own_points(toy):
    for student in MECHANISMS:
        name, content, _ = HOSTILE[student]
        toy.hand_in(student, content, name)
    toy.hand_in("right", attack(SQUARE))
    toy.args.cell_seconds = 20
    toy.grade()
    wanted = {student: HOSTILE[student][2] for student in MECHANISMS}
    assert {student: toy.points(student) for student in wanted} == wanted
    assert toy.points("right") == (2, 2)
    assert len(toy.table("grades")) == len(MECHANISMS) + 1
    said = {}
    for row in toy.table("review"):
        said[row["student"]] = said.get(row["student"], "") + row["why"]
    for student, why in MECHANISMS.items():
        assert why is None or why in said[student], student
    assert "arange(8.0)" not in toy.page("reads").partition("<h3>")[0]
    assert not list(toy.out.rglob("*escape*"))


@linux
@pytest.mark.timeout(400)
def test_only_what_changed_is_graded_again(toy):
    toy.hand_in("ada", attack(SQUARE).replace("YOUR ANSWER HERE", "Four."))
    toy.hand_in("eve", attack("def square(x):\n    return x"))
    assert "2 submissions, 2 graded now, 1 lines" in toy.grade()
    assert "2 submissions, 0 graded now" in toy.grade()

    toy.review(student="ada", points="0,5", comment="<b>Half</b> of it")
    toy.grade()
    assert toy.table("grades")[0]["score"] == "4.5"
    assert "&lt;b&gt;Half&lt;/b&gt; of it" in toy.page("ada")
    assert toy.table("review")[0]["why"] == "points by a human"
    assert "0 lines" in toy.grade()

    toy.hand_in("ada", attack(SQUARE).replace("YOUR ANSWER HERE", "Five."))
    assert "1 graded now, 1 lines" in toy.grade()
    assert toy.table("grades")[0]["score"] == "4"
    assert "it had 0.5 points from a human, but" in toy.table("review")[0]["why"]

    for points, why in [("much", "is not a number"), ("2", "2 of 1 points")]:
        toy.review(student="ada", points=points)
        with pytest.raises(UserError, match=why):
            toy.grade()
    toy.review(student="ada", points="")

    toy.review(student="ada", points="1")
    toy.source.write_text(EXERCISE.replace("1234.5", "-1234.5"), "utf-8")
    assert "2 submissions, 2 graded now, 0 lines" in toy.grade()
    assert toy.table("grades")[0]["score"] == "5"
    toy.source.write_text(EXERCISE.replace('"words"', '"other"'), "utf-8")
    with pytest.raises(UserError, match="move that folder away"):
        toy.grade()


@linux
def test_an_exercise_solved_and_unsolved(toy, monkeypatch):
    """All points but those of a human for the source, none for what students get.

    That all of them pass and fail is for test_exercises.py.
    """
    monkeypatch.setattr(exercises, "EXERCISES", ROOT / "code" / "exercises")
    toy.args.cell_seconds, toy.args.seconds = 100, 1200
    path = exercises.EXERCISES / "convolution.py"
    source = exercises.source(path)
    solved = exercises.processed(source, exercises.ClearHiddenTests)
    toy.hand_in("solved", exercises.as_script(solved, path), path.name)
    unsolved = exercises.student_version(exercises.source(path))
    toy.hand_in("unsolved", nbformat.writes(unsolved), "convolution.ipynb")
    toy.grade()
    grades = {row["student"]: row for row in toy.table("grades")}
    written = sum(cell.metadata.nbgrader.points for cell in source.cells
                  if cell.metadata.get("nbgrader", {}).get("grade")
                  and cell.metadata.nbgrader.solution)
    row = grades["solved"]
    assert float(row["score"]) == float(row["max_score"]) - written, toy.page("solved")
    assert float(grades["unsolved"]["score"]) == 0
    assert not [row for row in toy.table("review") if "needs points" not in row["why"]]


def test_of_outputs_only_pictures_are_kept():
    def output(**data):
        return nbformat.v4.new_output("display_data", data)

    kept = verdicts.figures([
        output(**{"image/png": "iVBORw0KGgo=\n", "text/html": "<script>"}),
        output(**{"image/png": '"><script>'}), output(**{"text/html": "<script>"}),
        nbformat.v4.new_output("stream", text="x")])
    assert [dict(one.data) for one in kept] == [{"image/png": "iVBORw0KGgo="}]


def test_every_canary_fails():
    from lab import checks
    for line in verdicts.CANARIES:
        with pytest.raises((checks.Hint, AssertionError)):
            exec(line, {"torch": torch, "checks": checks})


# The command ----------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_unsafe_after_a_warning(toy, tmp_path, monkeypatch, capsys):
    toy.hand_in("ada", attack(SQUARE))
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: pytest.fail("is not asked"))
    monkeypatch.setattr(sys, "argv", ["grade", str(toy.handed_in), "--unsafe"])
    grade.main()
    told = capsys.readouterr()
    assert told.err.startswith("without a sandbox: each submission can ")
    assert toy.points("ada") == (2, 2)


def test_a_folder_that_is_not_there_is_one_line():
    done = subprocess.run([sys.executable, ROOT / "code/lab/grade.py", "nowhere"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "nowhere is not there\n")
