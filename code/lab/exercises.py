"""Make the student's version of every exercise: out/exercises/NAME/.

This is `npm run exercises`. An exercise is code/exercises/NAME.py, a jupytext percent
script whose cells carry nbgrader's metadata; without names, as in `npm run exercises`,
all are made. Solutions and hidden tests are taken out by nbgrader.
"""

import argparse
import ast
import copy
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # code/, not code/lab/

from lab import UserError, terminal  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LAB = Path(__file__).resolve().parent
EXERCISES = ROOT / "code" / "exercises"
MADE = ROOT / "out" / "exercises"
STAMP = ".made.json"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def asked(names):
    """The sources of these names, or all; UserError for an unknown one."""
    sources = {path.stem: path for path in sorted(EXERCISES.glob("*.py"))}
    names = [Path(name).name.removesuffix(".py") for name in names]
    for name in names:
        if name not in sources:
            raise UserError(f"no exercise code/exercises/{name}.py; available: "
                            f"{', '.join(sources) or 'none'}")
    return [sources[name] for name in names or sources]


def source(path):
    """The notebook of an exercise's source, with nbgrader's metadata in full.

    In the source a cell says only what is its own: grade_id and solution, locked or
    points; a cell with points and no solution is a check.
    """
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for cell in notebook.cells:
        own = cell.metadata.get("nbgrader")
        if own:
            solution, grade = own.get("solution", False), "points" in own
            cell.metadata["nbgrader"] = nbformat.from_dict({
                "schema_version": 3, "task": False, "grade": grade,
                "solution": solution, "locked": not solution} | own)
    try:
        return processed(notebook, LockCells, CheckCellMetadata)
    except Exception as error:   # nbgrader's own have no common class
        raise UserError(f"{path.name}: {error}") from None


def without_solutions(notebook):
    """A copy with hidden tests and no solutions: what is graded."""
    return processed(copy.deepcopy(notebook), ClearSolutions, ComputeChecksums,
                     CheckCellMetadata)


def student_version(notebook):
    """A copy with neither."""
    return processed(without_solutions(notebook), ClearHiddenTests, ComputeChecksums,
                     CheckCellMetadata)


def processed(notebook, /, *steps, **resources):
    """The notebook after these steps of nbgrader."""
    for step in steps:
        notebook, _ = step().preprocess(notebook, {"nbgrader": resources})
    return notebook


def as_script(notebook, path):
    """A notebook as percent script, its cells marked as in the source at `path`."""
    script = copy.deepcopy(notebook)
    script.metadata = nbformat.from_dict(
        {"jupytext": {"notebook_metadata_filter": "-all"}})
    for cell, original in zip(script.cells, jupytext.read(path).cells):
        cell.metadata = original.metadata
    return jupytext.writes(script, "py:percent")


def used_modules(text):
    """Names of the modules of lab that a source imports, and of those they import."""
    found, waiting = set(), [text]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            if isinstance(node, ast.ImportFrom) and node.module == "lab":
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "")[:4] == "lab.":
                names = {node.module[4:]}
            else:
                continue
            new = {name for name in names - found
                   if (LAB / f"{name}.py").exists()}
            found |= new
            waiting += [(LAB / f"{name}.py").read_text("utf-8")
                        for name in new]
    return sorted(found)


def copy_lab(path, folder):
    """Put what an exercise's source needs of lab into folder/lab."""
    (folder / "lab").mkdir(parents=True)
    for name in ["__init__", *used_modules(path.read_text("utf-8"))]:
        shutil.copy(LAB / f"{name}.py", folder / "lab")


def make(path):
    """Write out/exercises/NAME/ again: script, notebook and the checks they need.

    UserError if somebody has worked on what was made before.
    """
    notebook = student_version(source(path))
    folder = MADE / path.stem
    worked_on = changed(folder)
    if worked_on:
        raise UserError(f"{worked_on} was worked on since it was made: move it away, "
                        "then make the exercise again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            copy_lab(path, new)
            (new / path.name).write_text(as_script(notebook, path), "utf-8")
            nbformat.write(notebook, new / f"{path.stem}.ipynb")
            (new / STAMP).write_text(json.dumps(hashes(new)), "utf-8")
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            new.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}") from None
    return folder


def hashes(folder):
    """{name: hash} of an exercise's script and notebook."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.glob("*.*")) if file.suffix in (".py", ".ipynb")}


def changed(folder):
    """A file of a made exercise that is not as it was made, or None."""
    if not folder.exists():
        return None
    try:
        made = json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        made = {}
    return next((folder.relative_to(ROOT) / name for name, now in hashes(folder).items()
                 if made.get(name) != now), None)


def points(notebook):
    """{grade_id: points} of the cells that are graded."""
    return {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points
            for cell in notebook.cells
            if cell.metadata.get("nbgrader", {}).get("grade")}


def main():
    terminal.prepare()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="an exercise")
    for path in asked(parser.parse_args().names):
        folder = make(path)
        print(f"wrote {terminal.shown(folder)} "
              f"({sum(points(source(path)).values()):g} points)")


if __name__ == "__main__":
    main()
