"""Grade a folder, or an archive, of submissions: out/grades/FOLDER/.

This is `npm run grade -- FOLDER`. Submissions are executed in a sandbox, as many at a
time as there are cores, with nbgrader's autograder and into its gradebook. It writes
grades.csv, a page for every student in feedback/, and review.csv, what a human has to
look at: points and comments filled in there count when the command is run again, which
grades only what has changed.
"""

import argparse
import ast
import builtins
import copy
import csv
import hashlib
import html
import multiprocessing
import os
import random
import secrets
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.preprocessors import LimitOutput, SaveAutoGrades, SaveCells
from nbgrader.utils import is_grade, is_locked, is_solution

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, exercises, sandbox, submissions  # noqa: E402
from lab.exercises import LAB, ROOT  # noqa: E402

# Each submission has a process, forked from one that has imported all this already.
PROCESSES = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
PROCESSES.set_forkserver_preload(["lab.grade"])
GRADES = ROOT / "out" / "grades"
PASSED = "application/vnd.lab.passed"   # as lab.checks has it
CANARIES = [   # each of them must fail
    "checks.equal(lambda x: x, lambda x: x + 1, torch.zeros(2))",
    "checks.shape(torch.flatten, torch.zeros(2, 2), expected=(2, 2))",
    "checks.parameters(torch.nn.Linear(2, 2), 5)",
    "checks.gradient(lambda x: x * x.detach(), torch.ones(2))",
    "checks.overfits(torch.nn.Flatten(), torch.zeros(2, 2), torch.arange(2))",
    "checks.eval_mode(torch.nn.BatchNorm1d(2, track_running_stats=False), "
    "torch.eye(2))",
    "checks.reproducible(lambda: torch.zeros(2))",
    "checks.accuracy(lambda: torch.nn.Linear(2, 2), torch.eye(2), torch.arange(2), 2, 9)",
    "checks.without(torch.sum, 'sum')(torch.ones(2))",
    "assert torch.equal(torch.zeros(2), torch.ones(2))",
]
LATER = "a human looks at this one first."
QUOTES = "the message quotes hidden tests"
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
        parts = [work.name.encode(), work.content, str(self.args.unsafe).encode(),
                 str((self.args.cell_seconds, self.args.seconds)).encode(),
                 (exercises.EXERCISES / f"{work.exercise}.py").read_bytes(),
                 *(path.read_bytes() for path in sorted(LAB.glob("*.py")))]
        return hashlib.sha256(b"".join(
            hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def untouched(self, exercise, name, content):
        """Whether no solution cell of a file was worked on."""
        given = {part(cell): cell.source.strip()
                 for cell in self.unsolved[exercise].cells if is_solution(cell)}
        try:
            cells = read(name, content)
        except UserError:
            return False
        return all(cell.source.strip() == given.get(part(cell), cell.source.strip())
                   for cell in cells)


# From what was handed in to what is executed ----------------------------------


def read(name, content):
    """The cells of a submission, with nothing but their text and grade_id."""
    try:
        text = content.decode("utf-8-sig")
        notebook = (nbformat.reads(text, as_version=4) if name.endswith(".ipynb")
                    else jupytext.reads(text, "py:percent"))
        cells = []
        for cell in notebook.cells:
            new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
            cells.append(new(str(cell.source),
                             metadata={"nbgrader": {"grade_id": part(cell)}}))
        return cells
    except UnicodeDecodeError:
        raise UserError("it is not text in UTF-8") from None
    except Exception as error:   # libraries raise what they like on such a file
        raise UserError("it cannot be read as a notebook or script: "
                        f"{type(error).__name__}") from None


def part(cell):
    """The grade_id of a cell, None if it has none."""
    own = cell.metadata.get("nbgrader")
    name = own.get("grade_id") if isinstance(own, dict) else None
    return name if isinstance(name, str) else None


def restored(source, unsolved, cells):
    """The cells to execute, [(cell, whose)], and notes, [(grade_id, why)].

    Checks and other locked cells are those of the source. The student's solutions are
    taken by their grade_id; cells without one stay behind the cell that they follow,
    but for the texts that were handed out.
    """
    texts = {cell.source.strip() for cell in unsolved.cells if not part(cell)}
    known = [part(cell) for cell in source.cells if part(cell)]
    given = {part(cell): cell.source.strip() for cell in unsolved.cells if part(cell)}
    own, following, after, notes = {}, {None: []}, None, []
    for cell in cells:
        name = part(cell)
        if name in known and name not in own:
            own[name], following[name], after = cell, [], name
        elif cell.source.strip() not in texts:   # own, or the second half of a cell
            cell.metadata = nbformat.from_dict({})
            following[after].append(cell)
    merged, missing = list(following[None]), []
    for cell in source.cells:
        name = part(cell)
        if not name:
            continue
        if name not in own:
            missing.append(name)
        elif is_locked(cell) and own[name].source.strip() != given[name]:
            notes.append((name, "the cell was edited: it was put back"))
        cell = copy.deepcopy(cell)
        if not is_locked(cell):
            unanswered = "" if cell.cell_type == "code" else given[name]
            cell.source = own[name].source if name in own else unanswered
        merged += [cell, *following.get(name, [])]
    if missing:
        notes.append(("", f"cells are missing: {', '.join(missing)}"))
    return merged, notes


def instrumented(cells):
    """The notebook that is executed, and [(index in cells, kind, token)] of its cells.

    A check cell imports anew what locked cells import, and reports its end with a
    token that nothing could know before. A canary follows, of checks that must fail:
    it would report the token reversed for one that passes, and reports its own end.
    """
    imports = "\n".join(
        ast.unparse(node) for cell in cells if cell.cell_type == "code"
        and is_locked(cell) for node in ast.parse(cell.source).body
        if isinstance(node, ast.Import | ast.ImportFrom))
    imports += "\nimport torch, lab.checks\nfrom lab import checks"
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": exercises.KERNEL})
    roles = []

    def add(index, kind, source, token=None, **metadata):
        notebook.cells.append(new_code_cell(source, metadata=metadata))
        roles.append((index, kind, token))

    add(None, "guard", "import lab.checks\nlab.checks.guard()", seconds=120)
    for index, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        if not is_check(cell):
            add(index, "own", cell.source)
            continue
        token = secrets.token_hex(16)
        add(index, "check", f"{imports}\n{cell.source}\n{reported(token)}", token)
        token = secrets.token_hex(16)
        canary = "\n".join(
            f"try:\n    {line}\nexcept Exception:\n    pass\nelse:\n"
            f"    {reported(token[::-1])}" for line in random.sample(CANARIES, len(CANARIES)))
        add(index, "canary", f"{imports}\n{canary}\n{reported(token)}", token,
            seconds=120)
    return notebook, roles


def reported(token):
    return f"lab.checks.passed({token!r})"


def is_check(cell):
    return is_grade(cell) and not is_solution(cell)


def judged(cells, executed, roles, secret):
    """Put the verdicts into the cells' outputs; returns notes, [(grade_id, why)].

    nbgrader takes an error for no points and anything else for all, so a check that
    passed is left with nothing and any other with one error that says why. secret: the
    lines of hidden tests, which nothing that a student reads may quote.
    """
    if executed is None:
        return []
    notes, ended, trusted = [], executed.metadata.get("ended"), True
    if ended:
        notes.append(("", f"it was not executed to its end: {ended}"))
    for (index, kind, token), done in zip(roles[1:], executed.cells[1:]):
        cell, name = cells[index], part(cells[index]) or ""
        tokens = [output.data.get(PASSED) for output in done.outputs
                  if output.output_type == "display_data"]
        errors = {output.ename: output for output in done.outputs
                  if output.output_type == "error"}
        error = errors.get("CellTimeoutError") or next(iter(errors.values()), None)
        passed = token in tokens
        if "Tampered" in errors or kind == "canary" and token[::-1] in tokens:
            trusted = False
            notes.append((name, errors["Tampered"].evalue if "Tampered" in errors
                          else "a check that must fail has passed"))
        elif kind == "canary":
            if not passed and not cell.outputs:   # what would show it was prevented
                cell.outputs = [told(error, ended, secret)]
                notes.append((name, "it passed, but nothing was executed after it"))
            continue
        elif "CellTimeoutError" in errors:
            notes.append((name, "stopped: it took too long"))
        elif kind == "own" and error and error.ename in ("SyntaxError",
                                                         "IndentationError"):
            notes.append((name, "the cell is not valid Python"))
        if kind == "check":
            cell.outputs = [] if passed else [told(error, ended, secret)]
            shadowed = passed and redefined(cells[:index], cell)
            if shadowed:
                notes.append((name, "the checks use names that were redefined: "
                              + ", ".join(shadowed)))
        elif kind == "own":
            cell.outputs = [told(error, ended, secret)] if error else []
        if any(output.evalue == QUOTES for output in cell.outputs):
            notes.append((name, QUOTES))
    for cell in cells:
        if not trusted and is_check(cell):
            cell.outputs = [error_output("Hint", LATER)]
            notes.append((part(cell), "tampered with: no points before you have looked"))
    return notes


def told(error, ended, secret):
    """An error output in one line, without traceback and hidden tests."""
    if error is None:
        return error_output("Hint", f"not executed: {ended}." if ended else
                            "the cell did not come to its end.")
    if error.ename == "CellTimeoutError":
        return error_output("Hint", "stopped: it took too long.")
    if any(line in f"{error.evalue}" for line in secret):
        return error_output("Hint", QUOTES)
    value = (str(error.evalue).strip().splitlines() or [""])[0][:400]
    return error_output(str(error.ename)[:80], value)


def error_output(name, value):
    return new_output("error", ename=name, evalue=value, traceback=[])


def redefined(cells, check):
    """Names of Python's own that the check uses and the student's cells assign."""
    used = {node.id for node in ast.walk(ast.parse(check.source))
            if isinstance(node, ast.Name)} & set(vars(builtins))
    assigned = set()
    for cell in cells:
        try:
            body = ast.parse(cell.source).body if cell.cell_type == "code" else []
        except (SyntaxError, ValueError):
            continue
        for node in body:
            assigned |= {node.name} if hasattr(node, "name") else {
                name.id for name in ast.walk(node) if isinstance(name, ast.Name)
                and isinstance(name.ctx, ast.Store)}
    return sorted(used & assigned)


def prepared(course, work):
    """(cells, notes, notebook to execute or None, its roles) of a submission."""
    source, unsolved = course.sources[work.exercise], course.unsolved[work.exercise]
    try:
        cells, notes = restored(source, unsolved, read(work.name, work.content))
        notes += [("", work.note)] if work.note else []
        return cells, notes, *instrumented(cells)
    except UserError as error:
        cells, _ = restored(source, unsolved, [])
        for cell in filter(is_check, cells):
            cell.outputs = [error_output("Hint", f"{error}.")]
        return cells, [("", str(error))], None, []


def executed(notebook, lab, args):
    """The notebook after it ran in the sandbox, however far it came."""
    if notebook is None:
        return None
    with tempfile.TemporaryDirectory(prefix="grade-") as temporary:
        path = Path(temporary) / "run.ipynb"
        nbformat.write(notebook, path)
        process = PROCESSES.Process(target=sandbox.execute, daemon=True, args=(
            path, lab, args.cell_seconds, args.seconds, data_folder(), not args.unsafe))
        process.start()
        process.join(args.seconds + 120)
        process.kill()   # bubblewrap ends with it
        process.join()
        result = nbformat.read(path, as_version=4)
        if process.exitcode and "ended" not in result.metadata:
            result.metadata["ended"] = f"the grader failed, status {process.exitcode}"
        return result


def data_folder():
    """Where data sets are: $LAB_DATA, else data/, where downloads go; else None."""
    places = [os.environ.get("LAB_DATA"), ROOT / "data"]
    return next((Path(place).resolve() for place in places
                 if place and Path(place).is_dir()), None)


# Into the gradebook ------------------------------------------------------------


def saved(course, work, cells, notes, digest):
    """Put a graded submission into the gradebook and beside it."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = exercises.KERNEL
    with Gradebook(course.url) as book:
        book.update_or_create_student(work.student)
        submission = book.update_or_create_submission(work.exercise, work.student)
        for given in submission.notebooks[0].grades:
            if given.manual_score is not None:
                notes.append((given.name, f"it had {given.manual_score:g} points from a "
                              "human before it was graded again"))
                given.manual_score = None
        book.db.commit()
    exercises.processed(notebook, LimitOutput, SaveAutoGrades, notebook=work.exercise,
                        assignment=work.exercise, student=work.student,
                        db_url=course.url)
    notebook.metadata["lab"] = {"digest": digest, "notes": notes, "file": work.name}
    path = graded_path(course, work)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def graded_path(course, work):
    return course.out / "autograded" / work.student / work.exercise / (
        f"{work.exercise}.ipynb")


def is_fresh(course, work, digest):
    """Whether this submission was graded before, with all as it is now."""
    try:
        graded = nbformat.read(graded_path(course, work), as_version=4)
        return graded.metadata.get("lab", {}).get("digest") == digest
    except (OSError, ValueError):
        return False


def take_marks(course):
    """Points that a human filled into review.csv go into the gradebook; comments."""
    path, comments = course.out / "review.csv", {}
    if not path.exists():
        return comments
    with Gradebook(course.url) as book, path.open(newline="", encoding="utf-8-sig") as file:
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
    """Write grades.csv, review.csv and the feedback pages; returns their rows."""
    grades, review, pages = [], [], {}
    with Gradebook(course.url) as book:
        for work in works:
            if work.problem:
                review.append([work.student, "", "", f"{work.name}: {work.problem}",
                               "", "", "", ""])
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
                           waiting, work.name])
            pages.setdefault(work.student, []).append(
                section(work, graded, given, comments, total, most))
    table(course.out / "grades.csv",
          ["student", "exercise", "score", "max_score", "to_review", "file"], grades)
    table(course.out / "review.csv", REVIEW, review)
    for student, sections in pages.items():
        path = course.out / "feedback" / f"{student}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGE.format(student=html.escape(student),
                                    sections="\n".join(sections)), "utf-8")
    return grades, review


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
        rows.append([work.student, work.exercise, name, "; ".join(dict.fromkeys(reasons)),
                     f"{grade.score:g}" if grade else "",
                     f"{grade.max_score:g}" if grade else "", points,
                     comments.get((work.student, work.exercise, name), "")])
    return rows


def table(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Feedback for {student}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1b1b; background: #fff }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
         border-bottom: 1px solid #ddd }}
td:nth-child(2) {{ white-space: nowrap }}
pre {{ background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 14px }}
</style>
<h1>Feedback for {student}</h1>
{sections}
</html>
"""


def section(work, graded, given, comments, total, most):
    """The part of a feedback page about one exercise, as HTML."""
    rows, code = [], []
    for cell in graded.cells:
        name = part(cell)
        said = [output.evalue if output.ename == "Hint"
                else f"{output.ename}: {output.evalue}" for output in cell.get("outputs", [])]
        grade = given.get(name)
        if grade:
            score = f"{grade.score:g} of {grade.max_score:g}"
            if grade.auto_score is None and grade.manual_score is None:
                score = f"not marked yet, of {grade.max_score:g}"
            elif grade.manual_score is not None:
                said = []
            said.append(comments.get((work.student, work.exercise, name), ""))
            rows.append((name.removesuffix("-checks"), score, " ".join(said).strip()))
        if not is_locked(cell) and cell.source.strip():
            code.append(f"<pre>{html.escape(cell.source)}</pre>")
            code += [f"<p>{html.escape(text)}</p>" for text in said if not grade]
    cells = "\n".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row)
                      + "</tr>" for row in rows)
    overall = comments.get((work.student, work.exercise, ""), "")
    return (f"<h2>{html.escape(work.exercise)}: {total:g} of {most:g} points</h2>\n"
            f"<p>{html.escape(overall)}</p>\n<table><tr><th>part</th><th>points</th>"
            f"<th>what to look at</th></tr>\n{cells}</table>\n"
            f"<h3>What you handed in ({html.escape(work.name)})</h3>\n"
            + "\n".join(code))


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
    works_digests = [(work, course.digest(work)) for work in works if not work.problem]
    waiting = [(work, digest) for work, digest in works_digests
               if not is_fresh(course, work, digest)]
    with tempfile.TemporaryDirectory(prefix="lab-") as temporary, (
            ThreadPoolExecutor(args.jobs)) as pool:
        labs = Path(temporary)
        for exercise in {work.exercise for work, _ in waiting}:
            exercises.copy_lab(exercises.EXERCISES / f"{exercise}.py", labs / exercise)
        running = {}
        for work, digest in waiting:
            cells, notes, notebook, roles = prepared(course, work)
            future = pool.submit(executed, notebook, labs / work.exercise, args)
            running[future] = work, digest, cells, notes, roles
        for number, future in enumerate(as_completed(running), 1):
            work, digest, cells, notes, roles = running[future]
            notes += judged(cells, future.result(), roles,
                            course.secret(work.exercise))
            saved(course, work, cells, notes, digest)
            print(f"{number} of {len(waiting)}: {work.student}, {work.exercise}",
                  flush=True)
    _, review = report(course, works, comments)
    return (f"{len(works_digests)} submissions, {len(waiting)} graded now, "
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
