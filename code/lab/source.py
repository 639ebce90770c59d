"""Reads a module without running it: cells, definitions, figures, imports, hash.

slides/engine/module.mjs reads the same for the slides; tests hold one against the
other.
"""

import ast
import hashlib
import re
from dataclasses import dataclass

GUARD = re.compile(r"""if\s+__name__\s*==\s*(["'])__main__\1\s*:\s*(#.*)?""")


@dataclass(frozen=True)
class Cell:
    """A titled cell, its first and last line from 1; a demo's are what it guards."""
    title: str
    first: int
    last: int
    is_demo: bool


def lines_of(text):
    """A module's lines, as Python counts them."""
    return re.sub("\r\n?", "\n", text).split("\n")


def read(path):
    """A module's text."""
    return path.read_bytes().decode("utf-8")


def cells(text):
    """{slug: Cell} of the titled cells of code, in order."""
    lines = lines_of(text)
    starts = [i for i, line in enumerate(lines) if re.match(r"# %%(\s|$)", line)]
    found = {}
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        title = lines[start][4:].strip()
        if title and not title.startswith("["):
            found[slug(title)] = _cell(title, lines, start + 1, end)
    return found


def slug(title):
    """A title as the slides refer to it: "Plain against residual" by hyphens."""
    return re.sub(r"[\W_]+", "-", title.lower()).strip("-")


def definitions(text):
    """{name of a class, function or method: its first and last line}."""
    return _definitions(ast.parse(text).body)


def figures(text):
    """{name of a figure: (slug of the demo cell that saves it, "svg" or "png")}."""
    found, demos = {}, [(key, cell) for key, cell in cells(text).items()
                        if cell.is_demo]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "figures.save":
            names = [value.value for value in node.args[1:]
                     if isinstance(value, ast.Constant)]
            png = any(ast.unparse(keyword) == "format='png'"
                      for keyword in node.keywords)
            saving = [key for key, cell in demos
                      if cell.first <= node.lineno <= cell.last]
            if names and saving:
                found[names[0]] = saving[0], "png" if png else "svg"
    return found


def imported_modules(text, folder):
    """The files of the modules in `folder` that a module's text imports."""
    names = (re.match(r"\s*(?:from|import)\s+([A-Za-z_]\w*)", line, re.A)
             for line in lines_of(text))
    files = [folder / f"{name[1]}.py" for name in names if name]
    return [file for file in dict.fromkeys(files) if file.is_file()]


def module_hash(path):
    """Compute the SHA-256 of a module and the modules beside it that it imports.

    Blank lines, comment-only lines and docstrings don't count, so that better words
    make no training stale.
    """
    return _hash(path, lines_without_docstrings)


def training_hash(path):
    """Compute the hash of what a module trains: without its cells that only draw."""
    return _hash(path, _lines_that_train)


def _lines_that_train(text):
    """Empty the demo cells of a module's lines but Trainings, and the docstrings."""
    lines = lines_without_docstrings(text)
    for key, cell in cells(text).items():
        if cell.is_demo and key != "trainings":
            lines[cell.first - 1:cell.last] = (cell.last - cell.first + 1) * [""]
    return lines


def _hash(path, lines_that_count):
    found, waiting = {}, [path]
    while waiting:
        module = waiting.pop()
        if module.stem not in found:
            text = read(module)
            stripped = [line.rstrip() for line in lines_that_count(text)]
            found[module.stem] = "".join(f"{line}\n" for line in stripped
                                         if line and not line.lstrip().startswith("#"))
            waiting += imported_modules(text, module.parent)
    digest = hashlib.sha256()
    for name, source in sorted(found.items()):
        digest.update(f"{name}\n{source}".encode())
    return digest.hexdigest()


def lines_without_docstrings(text):
    """Empty the docstrings of a module's lines, and change nothing else."""
    lines = lines_of(text)
    for node in ast.walk(ast.parse(text)):
        if docstring := _docstring(node):
            first, last = docstring.lineno - 1, docstring.end_lineno - 1
            # ast counts columns in bytes
            before = lines[first].encode()[:docstring.col_offset].decode()
            after = lines[last].encode()[docstring.end_col_offset:].decode()
            lines[first:last + 1] = [before + after] + (last - first) * [""]
    return lines


def _docstring(node):
    """The statement that is the docstring of a module, class or function, or None."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    first = node.body[0] if isinstance(node, kinds) and node.body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    # A statement in parentheses begins before its value: slides show it as code.
    return first if is_text and isinstance(first.value.value, str) and (
        first.col_offset == first.value.col_offset) else None


def _cell(title, lines, start, end):
    """The cell of lines[start:end]; comments before its code are not part of it."""
    while end > start and not lines[end - 1].strip():
        end -= 1
    while start < end and re.match(r"\s*(#|$)", lines[start]):
        start += 1
    guarded = lines[start + 1:end]
    is_demo = bool(guarded and GUARD.fullmatch(lines[start]) and all(
        re.match(r"\s|$", line) for line in guarded))
    return Cell(title, start + (2 if is_demo else 1), end, is_demo)


def _definitions(body, prefix=""):
    found = {}
    for node in body:
        is_class = isinstance(node, ast.ClassDef)
        if is_class or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[prefix + node.name] = span(node)
            if is_class and not prefix:
                found |= _definitions(node.body, f"{node.name}.")
    return found


def span(node):
    """First and last line of a statement, with its decorators."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(part.lineno for part in decorators)]), node.end_lineno
