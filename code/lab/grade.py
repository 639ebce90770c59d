"""Grade a folder, or an archive, of submissions: out/grades/FOLDER/.

This is `npm run grade -- FOLDER`. Submissions are executed in a sandbox, as many at a
time as there are cores, with nbgrader's autograder and into its gradebook. It writes
grades.csv, a page for every student in feedback/, and review.csv, what a human has to
look at: points and comments filled in there count when the command is run again, which
grades only what has changed.
"""

import argparse
import html
import os
import re
import sys
import tempfile
import time
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import nbformat
import nbgrader.dbutil
import sqlalchemy
from nbformat.v4 import new_notebook
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.preprocessors import LimitOutput, SaveAutoGrades, SaveCells

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import (  # noqa: E402
    UserError,
    cells,
    exercises,
    sandbox,
    scrutiny,
    submissions,
    tables,
    terminal,
    verdicts,
)
from lab.cells import part  # noqa: E402
from lab.exercises import LAB, ROOT  # noqa: E402
from lab.feedback import PAGE, section  # noqa: E402
from lab.limits import PROCESSES, Worker  # noqa: E402
from lab.submissions import digest  # noqa: E402
from lab.tables import one_line  # noqa: E402
from lab.terminal import shown  # noqa: E402

MACHINE = sandbox.Machine()
GRADES = ROOT / "out" / "grades"
REVIEW = ["student", "exercise", "cell", "why", "score", "of", "points", "comment"]
FILLED_IN = ["student", "exercise", "cell", "points", "comment"]
COMMENTED = "commented by a human"
ELSEWHERE = "not among these submissions"


class Course:
    """The exercises as they are now, and where the grades go."""

    def __init__(self, folder, args, worker):
        name = folder.stem if folder.is_file() else folder.name
        self.out, self.origin = GRADES / name, str(folder.parent / name)
        self.out.mkdir(parents=True, exist_ok=True)
        self.check_origin()
        self.url = sqlalchemy.URL.create(
            "sqlite", database=str(self.out / "gradebook.db"))
        self.args, self.worker = args, worker
        annotated = {path.stem: exercises.source(path) for path in exercises.asked([])}
        self.sources = {name: exercises.without_solutions(notebook)
                        for name, notebook in annotated.items()}
        self.unsolved = {name: exercises.student_version(notebook)
                         for name, notebook in annotated.items()}

    def check_origin(self):
        """UserError if these are the grades of another folder of the same name."""
        try:
            before = (self.out / "folder.txt").read_text("utf-8", "surrogateescape")
        except OSError:
            return
        if before != self.origin:
            raise UserError(
                f"{shown(self.out)} has the grades of {before}: rename the folder that "
                "you grade now, or move those grades away (if it is the same folder, "
                f"only moved, delete {shown(self.out / 'folder.txt')})")

    def identify(self, works):
        """The works with their students' ids; remember the folder.

        UserError if the gradebook is of an earlier version that had other names.
        """
        path, known = self.out / "folder.txt", self.students()
        strangers = set(known) - {work.student for work in works}
        if strangers and not path.exists():
            raise UserError(
                f"{shown(self.out)} is from an earlier version, with other names for "
                f"{one_line(', '.join(sorted(strangers)), 200)}: move it away, then "
                "grade again")
        tables.replace(path, self.origin.encode("utf-8", "surrogateescape"))
        ids = submissions.safe_names({work.student for work in works}, known)
        return [replace(work, id=ids[work.student]) for work in works]

    def students(self):
        """{name: id} of the students in the gradebook."""
        if not (self.out / "gradebook.db").exists():
            return {}
        with Gradebook(self.url) as book:
            return {student.last_name or student.id: student.id
                    for student in book.students}

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
        """Hash everything that affects a submission's grade."""
        path, limits = exercises.EXERCISES / f"{work.exercise}.py", (
            self.args.unsafe, self.args.cell_seconds, self.args.seconds)
        modules = exercises.used_modules(path.read_text("utf-8"))
        return digest(
            work.name.encode(), work.digest.encode(), str(limits).encode(),
            path.read_bytes(), *(
                (LAB / f"{name}.py").read_bytes() for name in
                [*modules, "cells", "exercises", "sandbox", "scrutiny",
                 "verdicts"]))

    def marks(self):
        """{exercise: what identifies its cells}."""
        return {name: cells.marks(notebook.cells)
                for name, notebook in self.unsolved.items()}

    def untouched(self, exercise, handed_in):
        """Whether cells do not differ from those that were handed out."""
        try:
            return not self.worker.call(cells.worked_on, self.sources[exercise],
                                        self.unsolved[exercise], list(handed_in))
        except UserError:
            return False


# Execution ----------------------------------------------------------------------


def prepared(course, work):
    """(cells, notes, notebook to execute or None, its roles) of a submission."""
    source, unsolved = course.sources[work.exercise], course.unsolved[work.exercise]
    try:
        if work.unreadable:
            raise UserError(work.unreadable)
        merged, notes = course.worker.call(
            cells.restored, source, unsolved, list(work.cells))
        notes += [("", work.note)] if work.note else []
        return merged, notes, *verdicts.instrumented(merged)
    except UserError as error:
        merged, _ = cells.restored(source, unsolved, [])
        verdicts.refuse(merged, f"{error}.")
        return merged, [("", str(error))], None, []


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
    """Execute a notebook in a separate process and return it."""
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


def judge(course, work, cells, future, roles):
    """The verdicts, put into the cells; returns notes. Never raises."""
    try:
        done = future.result()
        notes = verdicts.judge(cells, done, roles, course.secret(work.exercise)) if (
            done) else []
    except Exception as error:   # a kernel can send what it likes
        verdicts.refuse(cells, verdicts.LATER)
        notes = [("", f"it cannot be judged: {type(error).__name__}: {error}"[:200])]
    return notes + looked_at(course, cells)


def looked_at(course, cells):
    """Notes about a submission's code, which is read within limits."""
    try:
        return course.worker.call(scrutiny.notes, cells, part)
    except UserError as error:
        return [("", f"look at its code: {error}")]


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
    with Gradebook(course.url) as book:
        book.update_or_create_student(work.id, last_name=work.student)
        submission = book.update_or_create_submission(work.exercise, work.id)
        for given in submission.notebooks[0].grades:
            if given.manual_score is not None and (
                    work.digest != graded_before(course, work).get("content")):
                notes.append((given.name, f"it had {given.manual_score:g} points from "
                              "a human, but was handed in again"))
                given.manual_score = None
        book.db.commit()
    notebook = exercises.processed(
        new_notebook(cells=cells, metadata={"kernelspec": exercises.KERNEL}),
        LimitOutput, SaveAutoGrades, notebook=work.exercise, assignment=work.exercise,
        student=work.id, db_url=course.url)
    notebook.metadata["lab"] = {"digest": key, "content": work.digest, "notes": notes}
    path = graded_path(course, work)
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.replace(path, nbformat.writes(notebook).encode())


def graded_path(course, work):
    return course.out / "autograded" / work.id / work.exercise / (
        f"{work.exercise}.ipynb")


def graded_before(course, work):
    """What is known of the last time that it was graded; {} if it never was."""
    try:
        graded = nbformat.read(graded_path(course, work), as_version=4)
        return graded.metadata.get("lab", {})
    except (OSError, ValueError):
        return {}


def take_marks(course, works):
    """Points that a human filled into review.csv go into the gradebook; comments.

    All of them, or UserError: a file that somebody worked on is never half understood.
    """
    path, comments = course.out / "review.csv", {}
    if not path.exists():
        return comments
    ids = course.students() | {work.student: work.id for work in works}

    def student(row):
        return unicodedata.normalize("NFC", row["student"])

    rows, given = tables.read(path, FILLED_IN, lambda row: student(row) in ids), {}
    with Gradebook(course.url) as book:
        for number, row in rows:
            points, comment = row["points"], row["comment"]
            key = student(row), row["exercise"], row["cell"]
            where = f"{shown(path)}, line {number}: {', '.join(filter(None, key))}"
            if not points and not comment:
                continue
            if key[0] not in ids:
                raise UserError(f"{where}: nobody of this name has handed anything in")
            if comment:
                if comments.setdefault(key, comment) != comment and key[1]:
                    raise UserError(f"{where}: there is another comment on it above")
                if key[1] and not graded(book, ids[key[0]], *key[1:]):
                    raise UserError(f"{where}: no such cell is graded")
            if points:
                score = points_in(points, where)
                if given.setdefault(key, score) != score:
                    raise UserError(f"{where}: there are other points for it above")
                give(book, ids[key[0]], *key[1:], score, where)
        book.db.commit()
    return comments


def graded(book, student, exercise, cell):
    """Whether a work, and a cell of it if one is named, is in the gradebook."""
    try:
        book.find_submission_notebook(exercise, exercise, student)
        return not cell or bool(book.find_graded_cell(cell, exercise, exercise))
    except MissingEntry:
        pass
    try:
        return bool(book.find_solution_cell(cell, exercise, exercise))
    except MissingEntry:
        return False


def points_in(text, where):
    """A number as people write it; UserError where it may be another one."""
    text = re.sub(r"\s", "", text)
    if not re.fullmatch(r"\+?[0-9]+([.,][0-9]+)?", text):
        raise UserError(f"{where}: {text[:40]!r} is not a number such as 2.5 or 2,5")
    if re.fullmatch(r"\+?[1-9][0-9]{0,2}[.,][0-9]{3}", text):
        raise UserError(f"{where}: {text!r} may be in thousands: write it without them")
    return float(text.replace(",", "."))


def give(book, student, exercise, cell, score, where):
    """Points of a human for a cell."""
    try:
        grade = book.find_grade(cell, exercise, exercise, student)
    except MissingEntry:
        raise UserError(f"{where}: no such cell is graded") from None
    if score > grade.max_score:
        raise UserError(f"{where}: {score:g} of {grade.max_score:g} points")
    grade.manual_score, grade.needs_manual_grade = score, False


# What comes out ----------------------------------------------------------------


def report(course, works, comments):
    """Write grades.csv, review.csv and the feedback pages; returns how much waits."""
    grades, review, pages, left = [], [], {}, dict(comments)
    with Gradebook(course.url) as book:
        for work in works:
            if work.problem:
                why = one_line(f"not graded: {work.problem}: {work.name}", 1000)
                comment = left.pop((work.student, "", ""), "")
                review.append([work.student, "", "", why, "", "", "", comment])
                continue
            graded = nbformat.read(graded_path(course, work), as_version=4)
            given = {grade.name: grade for grade in book.find_submission_notebook(
                work.exercise, work.exercise, work.id).grades}
            rows = reviewed(work, graded, given, comments)
            for row in rows:
                left.pop((work.student, work.exercise, row[2]), None)
            review += rows
            total = sum(grade.score for grade in given.values())
            most = sum(grade.max_score for grade in given.values())
            grades.append([work.student, work.exercise, f"{total:g}", f"{most:g}",
                           len(waiting(rows))])
            pages.setdefault((work.id, work.student), []).append(
                section(work, graded, given, comments, total, most))
    review += [[*key, ELSEWHERE, "", "", "", comment] for key, comment in left.items()]
    tables.write(course.out / "grades.csv",
                 ["student", "exercise", "score", "max_score", "to_review"], grades)
    tables.write(course.out / "review.csv", REVIEW, review)
    for (name, student), sections in pages.items():
        path = course.out / "feedback" / f"{name}.html"
        path.parent.mkdir(exist_ok=True)
        page = PAGE.format(student=html.escape(student), sections="\n".join(sections))
        tables.replace(path, page.encode())
    return len(waiting(review))


def waiting(rows):
    """The lines of review.csv that a human has not filled in."""
    return [row for row in rows
            if row[6] == "" and row[3] not in (COMMENTED, ELSEWHERE)]


def reviewed(work, graded, given, comments):
    """Rows of review.csv: notes, what waits for points, what a human has filled in."""
    why = {}
    for cell, note in graded.metadata["lab"]["notes"]:
        why.setdefault(cell, []).append(one_line(note, 300))
    for name, grade in given.items():
        if grade.manual_score is not None:
            why.setdefault(name, []).append("points by a human")
        elif grade.auto_score is None:
            why.setdefault(name, []).append("written: needs points from a human")
    for student, exercise, name in comments:
        if (student, exercise) == (work.student, work.exercise):
            why.setdefault(name, [COMMENTED])
    rows = []
    for name, reasons in why.items():
        grade = given.get(name)
        points = "" if grade is None or grade.manual_score is None else (
            f"{grade.manual_score:g}")
        score = [f"{grade.score:g}", f"{grade.max_score:g}"] if grade else ["", ""]
        rows.append([work.student, work.exercise, name,
                     one_line("; ".join(dict.fromkeys(reasons)), 1000), *score, points,
                     comments.get((work.student, work.exercise, name), "")])
    return rows


def grade_folder(folder, args):
    """Grade all that is in the folder; returns what it says at the end."""
    with Worker() as worker:
        return grade_course(Course(folder, args, worker), folder)


def grade_course(course, folder):
    works = submissions.find(folder, course.marks(), course.untouched, course.worker)
    works = course.identify(works)
    for exercise in sorted({work.exercise for work in works if not work.problem}):
        course.register(exercise)
    comments = take_marks(course, works)
    graded = [(work, course.digest(work)) for work in works if not work.problem]
    waiting = [(work, key) for work, key in graded
               if graded_before(course, work).get("digest") != key]
    with tempfile.TemporaryDirectory(prefix="lab-") as temporary, (
            ThreadPoolExecutor(course.args.jobs)) as pool:
        labs, running = Path(temporary), {}
        for exercise in {work.exercise for work, _ in waiting}:
            exercises.copy_lab(exercises.EXERCISES / f"{exercise}.py", labs / exercise)
        for work, key in waiting:
            merged, notes, notebook, roles = prepared(course, work)
            future = pool.submit(executed, notebook, labs / work.exercise, course.args)
            running[future] = work, key, merged, notes, roles
        for number, future in enumerate(as_completed(running), 1):
            work, key, merged, notes, roles = running[future]
            notes += judge(course, work, merged, future, roles)
            saved(course, work, merged, notes, key)
            print(f"{number} of {len(waiting)}: {work.student}, {work.exercise}",
                  flush=True)
    return (f"{len(graded)} submissions, {len(waiting)} graded now, "
            f"{report(course, works, comments)} lines to look at in "
            f"{shown(course.out / 'review.csv')}")


def main():
    terminal.prepare()
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
    os.umask(0o077)   # grades are their owner's
    if GRADES.exists():
        GRADES.chmod(0o700)
    sys.stdout.reconfigure(errors="backslashreplace")   # names that it cannot print
    if not args.folder.exists():
        raise UserError(f"{args.folder} is not there")
    if args.unsafe:
        print("without a sandbox: each submission can read, change and send all that "
              "you can", file=sys.stderr)
    else:
        sandbox.bubblewrap()
    warnings.filterwarnings("ignore", module="nbgrader")   # about its own database
    # It puts this path into an ini file, in which a % has a meaning.
    nbgrader.dbutil.ALEMBIC_DIR = nbgrader.dbutil.ALEMBIC_DIR.replace("%", "%%")
    # It calls alembic, which is beside this Python, by its name.
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    start = time.perf_counter()
    try:
        said = grade_folder(args.folder.resolve(), args)
    except OSError as error:   # such as a full disk
        raise UserError(f"{error.filename or args.folder}: {error.strerror}") from None
    except sqlalchemy.exc.OperationalError as error:
        raise UserError(f"the gradebook cannot be used: {error.orig}") from None
    print(f"{said} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
