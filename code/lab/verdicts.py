"""Turn the cells of a submission into a notebook to execute, its outputs into verdicts.

Checks share a process with the submission. So they are those of the source, whatever
was handed in; each has to report its end with a secret token; and canaries, checks
that must fail, show when it is the checks that were changed.
"""

import ast
import builtins
import random
import re
import secrets

from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbgrader.utils import is_grade, is_locked, is_solution

from lab import exercises
from lab.cells import part, plain

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
    "checks.accuracy(lambda: torch.nn.Flatten(), torch.eye(2), torch.arange(2), 2, 9)",
    "checks.without(torch.sum, 'sum')(torch.ones(2))",
    "assert torch.equal(torch.zeros(2), torch.ones(2))",
]
LATER = "a human looks at this one first."
QUOTES = "the message quotes hidden tests"


def instrumented(cells):
    """The notebook that is executed, and [(index in cells, kind, token)] of its cells.

    A check cell imports again what locked cells import, takes Python's own names from
    Python, and reports its end with a token that nothing could know before. A canary
    follows, of checks that must fail: it would report the token reversed for one that
    passes, and reports its own end.
    """
    locked = [ast.parse(cell.source) for cell in cells
              if cell.cell_type == "code" and is_locked(cell)]
    imported = [node for tree in locked for node in tree.body
                if isinstance(node, ast.Import | ast.ImportFrom)]
    imports = "\n".join(map(ast.unparse, imported))
    imports += "\nimport builtins, torch, lab.checks\nfrom lab import checks"
    modules = ", ".join(map(repr, modules_of(imported)))
    pythons = Pythons(locked)
    notebook = new_notebook(metadata={"kernelspec": exercises.KERNEL})
    roles = []

    def add(index, kind, source, token=None, **metadata):
        notebook.cells.append(new_code_cell(source, metadata=metadata))
        roles.append((index, kind, token))

    # A cell may have more time than others: `# %% nbgrader={...} seconds=300`.
    add(None, "guard", f"import lab.checks\nlab.checks.guard({modules})", seconds=120)
    for index, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        if not is_check(cell):
            add(index, "own", cell.source, **limit(cell))
            continue
        token = secrets.token_hex(16)
        add(index, "check", f"{imports}\nlab.checks.settle()\n"
            f"{pythons.of(cell.source)}\n{reported(token)}", token, **limit(cell))
        token = secrets.token_hex(16)
        canary = "\n".join(
            f"try:\n    {line}\nexcept Exception:\n    pass\nelse:\n"
            f"    {reported(token[::-1])}"
            for line in random.sample(CANARIES, len(CANARIES)))
        add(index, "canary", f"{imports}\n{pythons.of(canary)}\nlab.checks.resume()\n"
            f"{reported(token)}", token, seconds=120)
    return notebook, roles


def modules_of(imports):
    """Names of what these statements import, and of where it is from."""
    names = []
    for node in imports:
        above = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += above + [".".join([*above, alias.name]) for alias in node.names]
    return list(dict.fromkeys(names))


class Pythons(ast.NodeTransformer):
    """Has a check take Python's own names, such as `sum`, from where they are.

    A submission may give them another meaning, as `from torch import *` does. But for
    those that the exercise itself gives one.
    """

    def __init__(self, trees):
        own = {name for tree in trees for node in ast.walk(tree) for name in (
            getattr(node, "name", None), getattr(node, "asname", None),
            getattr(node, "arg", None), getattr(node, "id", None) if isinstance(
                getattr(node, "ctx", None), ast.Store) else None)}
        # The compiler has to see the word super.
        self.names = {name for name in vars(builtins)
                      if not name.startswith("_")} - own - {"super"}

    def visit_Name(self, node):
        if node.id not in self.names or not isinstance(node.ctx, ast.Load):
            return node
        return ast.Attribute(ast.Name("builtins", ast.Load()), node.id, ast.Load())

    def of(self, source):
        return ast.unparse(ast.fix_missing_locations(self.visit(ast.parse(source))))


def limit(cell):
    return {"seconds": cell.metadata.seconds} if "seconds" in cell.metadata else {}


def reported(token):
    return f"lab.checks.passed({token!r})"


def is_check(cell):
    return is_grade(cell) and not is_solution(cell)


def judge(cells, executed, roles, secret):
    """Put the verdicts into the cells' outputs; returns notes, [(grade_id, why)].

    nbgrader takes an error for no points and anything else for all, so a check that
    passed is left with nothing and any other with one error that says why. secret: the
    lines of hidden tests, which nothing that a student reads may quote.
    """
    notes, ended, trusted = [], executed.metadata.get("ended"), True
    if ended:
        notes.append(("", f"it was not executed to its end: {ended}"))
    for (index, kind, token), done in zip(roles[1:], executed.cells[1:]):
        cell, name = cells[index], part(cells[index]) or ""
        tokens, errors = reports(done.outputs)
        error = errors.get("CellTimeoutError") or next(iter(errors.values()), None)
        passed = token in tokens
        forged = tampering(kind, token, tokens, errors, done.metadata.get("status"))
        if forged:
            trusted = False
            notes.append((name, forged))
        elif kind == "canary":
            if not passed and not cell.outputs:   # what would show it was prevented
                cell.outputs = [describe(error, ended, secret)]
                notes.append((name, "it passed, but nothing was executed after it"))
            continue
        elif "CellTimeoutError" in errors:
            notes.append((name, "stopped: it took too long"))
        elif kind == "own" and error and error.ename in ("SyntaxError",
                                                         "IndentationError"):
            notes.append((name, "the cell is not valid Python"))
        if kind in ("check", "own"):
            failed = error if kind == "own" else not passed
            cell.outputs = [describe(error, ended, secret)] if failed else []
        if kind == "own" and is_grade(cell):   # a human looks at them
            cell.outputs += figures(done.outputs)
        if any(output.get("evalue") == QUOTES for output in cell.outputs):
            notes.append((name, QUOTES))
    if not trusted:
        refuse(cells, LATER)
        notes += [(part(cell), "tampered with: no points before you looked")
                  for cell in cells if is_check(cell)]
    return notes


def reports(outputs):
    """The tokens of the checks that ended, and the errors by name, of a cell."""
    tokens = [output.data[PASSED] for output in outputs
              if output.output_type == "display_data" and PASSED in output.data]
    return tokens, {output.ename: output for output in outputs
                    if output.output_type == "error"}


def tampering(kind, token, tokens, errors, status):
    """What shows in the outputs of a cell that reports were forged; None if nothing."""
    if kind != "own" and "Tampered" in errors:
        return f"tampered with: {first_line(errors['Tampered'].evalue)}"
    if kind == "canary" and token[::-1] in tokens:
        return "tampered with: a check that must fail has passed"
    if set(tokens) - {token}:
        return "tampered with: a report that no check has made"
    if token in tokens and status == "error" and "CellTimeoutError" not in errors:
        return "tampered with: a check has reported its end, and failed"
    return None


def first_line(text):
    return (plain(text).strip().splitlines() or [""])[0][:200]


def refuse(cells, why):
    """No points for any check."""
    for cell in filter(is_check, cells):
        cell.outputs = [error_output("Hint", why)]


def describe(error, ended, secret):
    """Describe an error in one line, without traceback and hidden tests."""
    if error is None:
        return error_output("Hint", f"not executed: {ended}." if ended else
                            "the cell did not come to its end.")
    if error.ename == "CellTimeoutError":
        return error_output("Hint", "stopped: it took too long.")
    value = plain(error.evalue).strip()
    if any(line in value for line in secret):
        return error_output("Hint", QUOTES)
    return error_output(plain(error.ename)[:80], (value.splitlines() or [""])[0][:400])


def figures(outputs):
    """The PNG images of a cell's outputs, and nothing else of them."""
    found = [output.data["image/png"] for output in outputs
             if output.output_type in ("display_data", "execute_result")
             and "image/png" in output.data]
    return [new_output("display_data", {"image/png": picture.strip()})
            for picture in found if re.fullmatch(r"[\w+/=\s]{1,1000000}", picture)][:4]


def error_output(name, value):
    return new_output("error", ename=name, evalue=value, traceback=[])
