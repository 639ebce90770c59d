"""Grade a folder, or an archive, of submissions: out/grades/FOLDER/.

This is `npm run grade -- FOLDER`. Submissions are executed in a sandbox, as many at a
time as there are cores, with nbgrader's autograder and into its gradebook. It writes
grades.csv, a page for every student in feedback/, and review.csv, what a human has to
look at: points and comments filled in there count when the command is run again, which
grades only what has changed.
"""

import argparse
import csv
import hashlib
import html
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbformat.v4 import new_notebook
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.preprocessors import LimitOutput, SaveAutoGrades, SaveCells
from nbgrader.utils import is_solution

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, exercises, sandbox, submissions, verdicts  # noqa: E402
from lab.exercises import LAB, ROOT  # noqa: E402
from lab.feedback import PAGE, section  # noqa: E402
from lab.verdicts import part  # noqa: E402

# Each submission has a process, forked from one that has imported all this already.
PROCESSES = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
PROCESSES.set_forkserver_preload(["lab.grade"])
MACHINE = sandbox.Machine()
GRADES = ROOT / "out" / "grades"
REVIEW = ["student", "exercise", "cell", "why", "score", "of", "points", "comment"]


class Course:
    """The exercises as they are now, and where the grades go."""

    def __init__(self, folder, args):
        self.out = GRADES / (folder.stem if folder.is_file() else folder.name)
        self.out.mkdir(parents=True, exist_ok=True)
        self.url = f"sqlite:///{self.out / 'gradebook.db'}"
        self.args = args
        annotated = {path.stem: exercises.source(path) for path in exercises.asked([])}
        self.sources = {name: exercises.without_solutions(notebook)
                        for name, notebook in annotated.items()}
        self.unsolved = {name: exercises.student_version(notebook)
                         for name, notebook in annotated.items()}

    def cells(self, exercise):
        """{grade_id: cell} of an exercise."""
        return {cell.metadata.nbgrader.grade_id: cell
                for cell in self.sources[exercise].cells if "nbgrader" in cell.metadata}

    def register(self, exercise):
        """Have the exercise in the gradebook."""
        with Gradebook(self.url) as book:
            book.update_or_create_assignment(exercise)
        try:
            exercises.processed(self.sources[exercise], SaveCells, notebook=exercise,
                                assignment=exercise, db_url=self.url)
        except RuntimeError:   # nbgrader's word for: cells came or went
            raise UserError(
                f"the cells of {exercise} are not those that {shown(self.out)} was "
                "graded with: move that folder away, then grade again") from None

    def secret(self, exercise):
        """The lines of hidden tests."""
        def lines(notebook):
            return {line.strip() for cell in notebook.cells
                    for line in cell.source.splitlines()}

        return {line for line in lines(self.sources[exercise])
                - lines(self.unsolved[exercise]) if len(line) > 15}

    def digest(self, work):
        """Of all that decides about the grade of a submission."""
        path, limits = exercises.EXERCISES / f"{work.exercise}.py", (
            self.args.unsafe, self.args.cell_seconds, self.args.seconds)
        modules = exercises.used_modules(path.read_text("utf-8"))
        return digest(
            work.name.encode(), work.content, str(limits).encode(), path.read_bytes(),
            *((LAB / f"{name}.py").read_bytes()
              for name in [*modules, "exercises", "sandbox", "scrutiny", "verdicts"]))

    def untouched(self, exercise, name, content):
        """Whether no solution cell of a file was worked on."""
        given = {part(cell): cell.source.strip()
                 for cell in self.unsolved[exercise].cells if is_solution(cell)}
        try:
            cells = verdicts.read(name, content)
        except UserError:
            return False
        return all(cell.source.strip() == given.get(part(cell), cell.source.strip())
                   for cell in cells)


def digest(*parts):
    return hashlib.sha256(b"".join(
        hashlib.sha256(part).digest() for part in parts)).hexdigest()


# Execution ----------------------------------------------------------------------


def prepared(course, work):
    """(cells, notes, notebook to execute or None, its roles) of a submission."""
    source, unsolved = course.sources[work.exercise], course.unsolved[work.exercise]
    try:
        handed_in = verdicts.read(work.name, work.content)
        cells, notes = verdicts.restored(source, unsolved, handed_in)
        notes += [("", work.note)] if work.note else []
        return cells, notes, *verdicts.instrumented(cells)
    except UserError as error:
        cells, _ = verdicts.restored(source, unsolved, [])
        verdicts.refuse(cells, f"{error}.")
        return cells, [("", str(error))], None, []


def executed(notebook, lab, args):
    """The notebook after it ran in the sandbox, however far it came.

    What was ended because the machine ran out of memory is executed again, alone: it
    may have been a neighbor's fault.
    """
    if notebook is None:
        return None
    with MACHINE.shared():
        result = in_process(notebook, lab, args)
    if result.metadata.get("starved"):
        with MACHINE.alone():
            result = in_process(notebook, lab, args)
    return result


def in_process(notebook, lab, args):
    """The notebook after it was executed by a process of its own."""
    with tempfile.TemporaryDirectory(prefix="grade-") as temporary:
        path = Path(temporary) / "run.ipynb"
        nbformat.write(notebook, path)
        process = PROCESSES.Process(target=sandbox.execute, daemon=True, args=(
            path, lab, data_folder(), not args.unsafe,
            sandbox.Limits(args.cell_seconds, args.seconds)))
        process.start()
        process.join(args.seconds + 120)
        process.kill()   # all that it has started ends with it
        process.join()
        result = nbformat.read(path, as_version=4)
        if process.exitcode and "ended" not in result.metadata:
            result.metadata["ended"] = f"the grader failed, status {process.exitcode}"
        return result


def judged(course, work, cells, future, roles):
    """The verdicts, put into the cells; returns notes. Never raises."""
    try:
        done = future.result()
        return verdicts.judged(cells, done, roles, course.secret(work.exercise)) if (
            done) else []
    except Exception as error:   # a kernel can send what it likes
        verdicts.refuse(cells, verdicts.LATER)
        return [("", f"it cannot be judged: {type(error).__name__}: {error}"[:200])]


def data_folder():
    """Where data sets are: $LAB_DATA, else data/, where downloads go; else None."""
    places = [os.environ.get("LAB_DATA"), ROOT / "data"]
    return next((Path(place).resolve() for place in places
                 if place and Path(place).is_dir()), None)


# Into the gradebook ------------------------------------------------------------


def saved(course, work, cells, notes, key):
    """Put a graded submission into the gradebook and beside it.

    What a human gave stays as long as the student hands in the same.
    """
    content = digest(work.content)
    with Gradebook(course.url) as book:
        book.update_or_create_student(work.student)
        submission = book.update_or_create_submission(work.exercise, work.student)
        for given in submission.notebooks[0].grades:
            if given.manual_score is not None and (
                    content != graded_before(course, work).get("content")):
                notes.append((given.name, f"it had {given.manual_score:g} points from "
                              "a human, but was handed in anew"))
                given.manual_score = None
        book.db.commit()
    notebook = exercises.processed(
        new_notebook(cells=cells, metadata={"kernelspec": exercises.KERNEL}),
        LimitOutput, SaveAutoGrades, notebook=work.exercise, assignment=work.exercise,
        student=work.student, db_url=course.url)
    notebook.metadata["lab"] = {"digest": key, "content": content, "notes": notes}
    path = graded_path(course, work)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def graded_path(course, work):
    return course.out / "autograded" / work.student / work.exercise / (
        f"{work.exercise}.ipynb")


def graded_before(course, work):
    """What is known of the last time that it was graded; {} if it never was."""
    try:
        graded = nbformat.read(graded_path(course, work), as_version=4)
        return graded.metadata.get("lab", {})
    except (OSError, ValueError):
        return {}


def take_marks(course):
    """Points that a human filled into review.csv go into the gradebook; comments."""
    path, comments = course.out / "review.csv", {}
    if not path.exists():
        return comments
    with Gradebook(course.url) as book, path.open(
            newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            student, exercise, cell = (row.get(key) or "" for key in REVIEW[:3])
            points, comment = ((row.get(key) or "").strip() for key in REVIEW[-2:])
            if comment:
                comments[student, exercise, cell] = comment
            if not points:
                continue
            where = f"{shown(path)}: {student}, {exercise}, {cell or 'no cell'}"
            try:
                given = book.find_grade(cell, exercise, exercise, student)
                score = float(points.replace(",", "."))
            except MissingEntry:
                raise UserError(f"{where}: no such cell is graded") from None
            except ValueError:
                raise UserError(f"{where}: {points!r} is not a number") from None
            if not 0 <= score <= given.max_score:
                raise UserError(f"{where}: {points} of {given.max_score:g} points")
            given.manual_score, given.needs_manual_grade = score, False
        book.db.commit()
    return comments


# What comes out ----------------------------------------------------------------


def report(course, works, comments):
    """Write grades.csv, review.csv and the feedback pages; returns review's rows."""
    grades, review, pages = [], [], {}
    with Gradebook(course.url) as book:
        for work in works:
            if work.problem:
                review.append([work.student, "", "", f"not graded: {work.problem}: "
                               f"{work.name}", "", "", "", ""])
                continue
            graded = nbformat.read(graded_path(course, work), as_version=4)
            given = {grade.name: grade for grade in book.find_submission_notebook(
                work.exercise, work.exercise, work.student).grades}
            rows = reviewed(work, graded, given, comments)
            review += rows
            total = sum(grade.score for grade in given.values())
            most = sum(grade.max_score for grade in given.values())
            waiting = sum(row[6] == "" for row in rows)
            grades.append([work.student, work.exercise, f"{total:g}", f"{most:g}",
                           waiting])
            pages.setdefault(work.student, []).append(
                section(work, graded, given, comments, total, most))
    table(course.out / "grades.csv",
          ["student", "exercise", "score", "max_score", "to_review"], grades)
    table(course.out / "review.csv", REVIEW, review)
    for student, sections in pages.items():
        path = course.out / "feedback" / f"{student}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGE.format(student=html.escape(student),
                                    sections="\n".join(sections)), "utf-8")
    return review


def reviewed(work, graded, given, comments):
    """Rows of review.csv: notes, what waits for points, and what has got them."""
    why = {}
    for cell, note in graded.metadata["lab"]["notes"]:
        why.setdefault(cell, []).append(note)
    for name, grade in given.items():
        if grade.manual_score is not None:
            why.setdefault(name, []).append("points by a human")
        elif grade.auto_score is None:
            why.setdefault(name, []).append("written: needs points from a human")
    rows = []
    for name, reasons in why.items():
        grade = given.get(name)
        points = "" if grade is None or grade.manual_score is None else (
            f"{grade.manual_score:g}")
        score = [f"{grade.score:g}", f"{grade.max_score:g}"] if grade else ["", ""]
        rows.append([work.student, work.exercise, name,
                     "; ".join(dict.fromkeys(reasons)), *score, points,
                     comments.get((work.student, work.exercise, name), "")])
    return rows


def table(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def shown(path):
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def grade_folder(folder, args):
    """Grade all that is in the folder; returns what it says at the end."""
    course = Course(folder, args)
    names = {name: set(course.cells(name)) for name in course.sources}
    works = submissions.found(folder, names, course.untouched)
    for exercise in sorted({work.exercise for work in works if not work.problem}):
        course.register(exercise)
    comments = take_marks(course)
    graded = [(work, course.digest(work)) for work in works if not work.problem]
    waiting = [(work, key) for work, key in graded
               if graded_before(course, work).get("digest") != key]
    with tempfile.TemporaryDirectory(prefix="lab-") as temporary, (
            ThreadPoolExecutor(args.jobs)) as pool:
        labs, running = Path(temporary), {}
        for exercise in {work.exercise for work, _ in waiting}:
            exercises.copy_lab(exercises.EXERCISES / f"{exercise}.py", labs / exercise)
        for work, key in waiting:
            cells, notes, notebook, roles = prepared(course, work)
            future = pool.submit(executed, notebook, labs / work.exercise, args)
            running[future] = work, key, cells, notes, roles
        for number, future in enumerate(as_completed(running), 1):
            work, key, cells, notes, roles = running[future]
            notes += judged(course, work, cells, future, roles)
            saved(course, work, cells, notes, key)
            print(f"{number} of {len(waiting)}: {work.student}, {work.exercise}",
                  flush=True)
    review = report(course, works, comments)
    return (f"{len(graded)} submissions, {len(waiting)} graded now, "
            f"{sum(row[6] == '' for row in review)} lines to look at in "
            f"{shown(course.out / 'review.csv')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--cell-seconds", type=float, default=60,
                        help="limit for a cell (default 60)")
    parser.add_argument("--seconds", type=float, default=600,
                        help="limit for a submission (default 600)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(),
                        help="how many at a time (default: the number of cores)")
    parser.add_argument("--unsafe", action="store_true",
                        help="without a sandbox: submissions can do all that you can")
    args = parser.parse_args()
    if not args.folder.exists():
        raise UserError(f"{args.folder} is not there")
    if args.unsafe:
        print("without a sandbox: each submission can read, change and send all that "
              "you can", file=sys.stderr)
    else:
        sandbox.bubblewrap()
    warnings.filterwarnings("ignore", module="nbgrader")   # about its own database
    # It calls alembic, which is beside this Python, by its name.
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["PYTHONPATH"] = str(LAB.parent)   # for the processes
    start = time.perf_counter()
    said = grade_folder(args.folder.resolve(), args)
    print(f"{said} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130)
