"""How the source of every module of code/ reads: answered before any training."""

import ast
import builtins
import importlib
import json
import re
import subprocess
import symtable
import sys
from importlib.metadata import packages_distributions

import pytest

from declared import MODULES, ROOT
from lab import results

READ_MODULES = """
import { readModule } from "./slides/engine/module.mjs";
const read = (name) => {
  const { header, cells } = readModule(`code/${name}.py`);
  return [name, { header, cells: [...cells.values()] }];
};
console.log(JSON.stringify(Object.fromEntries(process.argv.slice(1).map(read))));
"""

LONGEST = 70   # seconds of a demo: 45 on 2 quiet cores, and records may be of busy ones

every_module = pytest.mark.parametrize("name", MODULES)


def source(name):
    return (ROOT / f"code/{name}.py").read_text("utf-8")


def guards(name):
    """The blocks under `if __name__ == "__main__":`."""
    return [node for node in ast.parse(source(name)).body
            if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]


@pytest.fixture(scope="session")
def read():
    """The modules as the deck engine reads them: {name: {header, cells}}."""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", READ_MODULES, *MODULES],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ruff(*paths):
    """What ruff finds, a line each; pyproject.toml has its rules."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--quiet", "--no-cache",
         "--output-format=concise", *paths], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@every_module
def test_ruff(name):
    """It finds nothing in a module and its tests."""
    files = [f"code/{name}.py", f"tests/test_{name}.py"]
    found = ruff(*(file for file in files if (ROOT / file).exists()))
    if found:
        pytest.fail(f"ruff check finds\n{found}", pytrace=False)


def test_ruff_elsewhere():
    """It finds nothing in the rest."""
    found = ruff(".")
    if found:
        pytest.fail(f"ruff check finds\n{found}", pytrace=False)


@every_module
def test_header(name, read):
    header = read[name]["header"]
    assert not header["error"] and header["papers"]
    for key in ("name", "idea", "demo", "time"):
        assert header[key], f"the header has no {key}"
        assert not re.search(r"\b(TIME|TODO|TBD|FIXME|XXX)\b|\?\?", header[key])


@every_module
def test_header_time(name, read):
    """That of the latest default demo, within a factor of 1.5, and at most LONGEST."""
    if line := mistimed(name, read[name]["header"]["time"], results.read(
            ROOT / f"static/results/{name}.json")):
        pytest.fail(line, pytrace=False)


def mistimed(name, time, record):
    """What is wrong with the time that a header states, in one line, or None."""
    stated = re.match(r"about ([\d.]+) s on \d+ CPU cores", time)
    if not stated:
        return f"code/{name}.py: write '- **Time**: about N s on 2 CPU cores'"
    if "demo" not in record:
        return f"code/{name}.py has no record: run npm run figures -- {name}"
    took = record["demo"]["seconds"]
    if took > LONGEST:
        return (f"the demo of code/{name}.py took {took:.0f} s, more than {LONGEST}: "
                "train smaller networks, or for fewer steps")
    if not took / 1.5 <= float(stated[1]) <= 1.5 * took:
        return f"code/{name}.py: write '- **Time**: about {took:.0f} s on 2 CPU cores'"
    return None


@pytest.mark.parametrize("time, seconds, words", [
    ("about 12 s on 2 CPU cores", 12.4, None), ("a moment", 12, "about N s"),
    ("about 12 s on 2 CPU cores", 30, "about 30 s"),
    (f"about {LONGEST + 1} s on 2 CPU cores", LONGEST + 1, f"more than {LONGEST}"),
    ("about 12 s on 2 CPU cores", None, "npm run figures -- toy")])
def test_a_wrong_time_is_found(time, seconds, words):
    line = mistimed("toy", time, {"demo": {"seconds": seconds}} if seconds else {})
    assert line is None if words is None else words in line


@every_module
def test_name_hides_no_other_module(name):
    assert name not in sys.stdlib_module_names
    assert name not in packages_distributions()


def test_code_is_no_package():
    assert not (ROOT / "code/__init__.py").exists()


@every_module
def test_demo_cells(name, read):
    """Each guard is alone in a titled cell, and the last cell saves the facts."""
    demos = [cell for cell in read[name]["cells"] if cell["isDemo"]]
    assert [node.body[0].lineno >= cell["firstLine"] and node.end_lineno <=
            cell["lastLine"] for node, cell in zip(guards(name), demos)] == (
                len(guards(name)) * [True])
    assert ast.unparse(guards(name)[-1].body[-1]) == "results.save(facts())"


@every_module
def test_demo_cells_stand_alone(name):
    """A demo cell uses definitions, lab and args, nothing of another demo cell."""
    known = {*vars(importlib.import_module(name)), *dir(builtins), "args"}
    for node in guards(name):
        missing = names_read(ast.unparse(ast.Module(node.body, []))) - known
        assert not missing, f"the cell at line {node.lineno} lacks {missing}"


def test_a_cell_that_leans_on_another_is_found():
    assert names_read("left = F.relu\nprint(left)") == {"F", "print"}
    assert names_read("print([left(x) for x in args.seeds])") == {
        "print", "left", "args"}


def names_read(code):
    """Names that a piece of code reads and does not assign."""
    return set(unbound(symtable.symtable(code, "cell", "exec")))


def unbound(top):
    bound = {s.get_name() for s in top.get_symbols() if s.is_local()}
    tables = [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        yield from (s.get_name() for s in table.get_symbols()
                    if s.is_referenced() and s.is_global()
                    and s.get_name() not in bound)


@every_module
def test_most_of_a_module_is_its_architecture(name):
    """At most 600 lines; of those after the header 40 % and more define, not show.

    What comes before the class Settings are the definitions that a paper is about.
    """
    lines = source(name).split("\n")
    start, demo = (next(i for i, line in enumerate(lines) if line.startswith(first))
                   for first in [("import", "from"), "class Settings"])
    share = (demo - start) / (len(lines) - start)
    assert len(lines) - 1 <= 600, "more than 600 lines: there is a second module in it"
    if len(lines) > 300 and name != "layers":   # which has a figure for each function
        assert share >= 0.4, f"only {share:.0%} of it are definitions"
