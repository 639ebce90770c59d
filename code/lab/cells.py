"""Match the cells of a submission with those of the exercise.

A cell is known by its grade_id. Tools and learning platforms drop those, and some make
one cell of all; then it is known by its definitions, its text, or its position.
"""

import ast
import copy
import re

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.utils import is_locked, is_solution

from lab import UserError

TEXT = 2 ** 18   # characters of all cells together
CODE = 2 ** 16   # of a code cell: Python's own parser takes seconds for more
CELLS = 2000
PICTURE = re.compile(r"data:[\w/+.-]+;base64,[\w+/=\s]+")   # pasted into a text
TEXT_ONLY = "text only"   # instead of a grade_id
DEFINED = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)|"
                     r"^(\w+)[ \t]*(?::[^=\n]+)?=(?!=)", re.M)


def read(name, content):
    """The cells of a submission, with nothing but their text and grade_id.

    Called in a process with limits: hardly anything that a file can hold is beyond
    what libraries do with it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("it is not text in UTF-8") from None
    try:
        cells = notebook_cells(text) if name.lower().endswith(".ipynb") else (
            script_cells(text))
        cells = [cell for cell in cells if cell.source.strip()]
    except Exception as error:   # libraries raise what they like on such a file
        raise UserError("it cannot be read as a notebook or script: "
                        f"{type(error).__name__}") from None
    check_size(cells, sum(len(cell.source) for cell in cells))
    if any(len(cell.source) > CODE for cell in cells if cell.cell_type == "code"):
        raise UserError(f"it has a code cell of more than {CODE:,} characters")
    return cells


def check_size(cells, characters):
    if len(cells) > CELLS or characters > TEXT:
        raise UserError(f"it has more than {CELLS} cells or {TEXT:,} characters")


def notebook_cells(text):
    """The cells of a notebook of any version; outputs and attachments are left out."""
    notebook = nbformat.convert(nbformat.reader.reads(text), 4)
    check_size(notebook.cells, 0)
    return [bare(cell, plain(cell.source)) for cell in notebook.cells]


def script_cells(text):
    """The cells of a percent or light script."""
    if len(text) > TEXT:
        text = PICTURE.sub("data:,", text)
    check_size([], len(text))
    is_light = re.search(r"^# \+( |$)", text, re.M) and not (
        re.search(r"^#\s*%%", text, re.M))
    # Within a function, jupytext would take a comment for the start of a cell.
    text = re.sub(r"^([ \t]+)#([ \t]*%%)", r"\1##\2", text, flags=re.M)
    # After an empty line a header is a comment, and nothing parses its YAML.
    notebook = jupytext.reads("\n" + text, "py:light" if is_light else "py:percent")
    cells = [bare(cell, plain(cell.source)) for cell in notebook.cells]
    if cells and re.match(r"(# )?---\n", cells[0].source.strip()) and all(
            line.startswith("#") for line in cells[0].source.strip().splitlines()):
        del cells[0]
    return cells


def bare(cell, text):
    if cell.cell_type != "code":
        text = PICTURE.sub("data:,", text)
    new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    return new(text.strip("\n"), metadata={"nbgrader": {"grade_id": part(cell)}})


def plain(text):
    """As a string that can be written, with the line ends of Python."""
    text = str(text).encode("utf-8", "replace").decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def part(cell):
    """The grade_id of a cell, None if it has none."""
    own = cell.metadata.get("nbgrader")
    name = own.get("grade_id") if isinstance(own, dict) else None
    return name if isinstance(name, str) else None


def defined(source):
    """What a source defines at its top level: "def NAME", or NAME for a value."""
    return {f"def {function}" if function else value
            for function, value in DEFINED.findall(source)}


def marks(cells):
    """What identifies cells: grade_ids, and names of functions and classes."""
    return {part(cell) for cell in cells if part(cell)} | {
        name for cell in cells if cell.cell_type == "code"
        for name in defined(cell.source) if name.startswith("def ")}


def restored(source, unsolved, cells):
    """The cells to execute, [(cell, whose)], and notes, [(grade_id, why)].

    Checks and other locked cells are those of the source. The student's solutions
    replace the given ones; cells that are no part of the exercise stay behind the
    cell that they follow, but for the texts that were handed out.
    """
    texts = {same(cell.source) for cell in unsolved.cells if not part(cell)}
    given = {part(cell): same(cell.source) for cell in unsolved.cells if part(cell)}
    own, following, after, notes = {}, {None: []}, None, []
    for cell in recognized(unsolved, cells):
        name = part(cell)
        if name in given and name not in own:
            own[name], following[name], after = cell, [], name
        elif same(cell.source) not in texts:   # own, or the second half of a cell
            cell.metadata = nbformat.from_dict({})
            following[after].append(cell)
    merged, missing = list(following[None]), []
    for cell in source.cells:
        name = part(cell)
        if not name:
            continue
        if name not in own:
            missing.append(name)
        elif is_locked(cell) and same(own[name].source) != given[name]:
            notes.append((name, "the cell was edited: it was put back"))
        cell = copy.deepcopy(cell)
        if not is_locked(cell):
            unanswered = "" if cell.cell_type == "code" else given[name]
            cell.source = own[name].source if name in own else unanswered
        merged += [cell, *following.get(name, [])]
    if missing:
        notes.append(("", f"cells are missing: {', '.join(missing)}"))
    return merged, notes


def worked_on(source, unsolved, cells):
    """Whether cells differ from those that were handed out."""
    given = {part(cell): essence(cell) for cell in unsolved.cells if part(cell)}
    merged, _ = restored(source, unsolved, copy.deepcopy(cells))
    return any(essence(cell) not in ("", given.get(part(cell)))
               for cell in merged if not is_locked(cell) and not is_idle(cell))


def essence(cell):
    """The text of a cell; of code without comments, which tools move or add."""
    if cell.cell_type != "code":
        return same(cell.source)
    return "\n".join(line.rstrip() for line in cell.source.splitlines()
                     if line.strip() and not line.lstrip().startswith("#"))


def is_idle(cell):
    """Whether a code cell has nothing but comments and imports."""
    return cell.cell_type == "code" and all(
        re.match(r"\s*(#|import |from |$)", line) for line in cell.source.splitlines())


def same(text):
    """A text without the white space that editors and tools change."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


# Cells without their grade_id ---------------------------------------------------


def recognized(unsolved, cells):
    """The cells with grade_ids, where those were lost."""
    had = {part(cell) for cell in cells}
    lost = Lost([cell for cell in unsolved.cells if part(cell) not in had])
    if not lost.cells:
        return cells
    of_part = {part(cell): index for index, cell in enumerate(unsolved.cells)
               if part(cell)}
    of_text = {same(cell.source): index for index, cell in enumerate(unsolved.cells)}
    found, at = [], -1
    for cell in cells:
        is_known = part(cell) in of_part or same(cell.source) in of_text
        answer = None
        for piece in [cell] if is_known else lost.pieces(cell):
            name = part(piece) if part(piece) in of_part else None
            where = of_part[name] if name else of_text.get(same(piece.source))
            if where is None and lost.answer(unsolved.cells[at + 1:at + 2], piece):
                where, answer = at + 1, piece
            elif where is None and answer and piece.cell_type == "code" and (
                    answer is found[-1]):   # the next statement of the same cell
                answer.source += "\n" + piece.source
                continue
            if where is not None:
                at, name = where, part(unsolved.cells[where])
            piece.metadata = nbformat.from_dict({"nbgrader": {"grade_id": name}})
            found.append(piece)
    return found


MAGIC = re.compile(r"^([ \t]*+)(?=[%!])", re.M)   # lines that only IPython understands


class Lost:
    """Cells of an exercise of which no submitted cell has the grade_id."""

    def __init__(self, cells):
        self.cells = [cell for cell in cells if part(cell)]
        self.solutions, self.statements = {}, {}
        self.locked = {part(cell): cell.source for cell in self.cells
                       if is_locked(cell)}
        for cell in self.cells:
            if cell.cell_type != "code":
                continue
            if is_solution(cell):
                self.solutions |= dict.fromkeys(defined(cell.source), part(cell))
            for node in ast.parse(cell.source).body if is_locked(cell) else []:
                if not isinstance(node, ast.Import | ast.ImportFrom):
                    self.statements.setdefault(ast.dump(node), []).append(part(cell))

    def answer(self, expected, piece):
        """Whether only its position can identify a cell where an answer is expected."""
        return any(
            is_solution(cell) and cell.cell_type == piece.cell_type
            and (cell.cell_type == "markdown" or not defined(cell.source))
            for cell in expected if cell in self.cells)

    def pieces(self, cell):
        """A cell in pieces that are each one cell of the exercise, or none of it."""
        if cell.cell_type != "code":
            return [cell]
        solved = {self.solutions[name] for name in defined(cell.source)
                  if name in self.solutions}
        try:
            nodes, labels = ast.parse(MAGIC.sub(r"\1pass #", cell.source)).body, []
            for node in nodes:
                labels.append(self.label(node, labels[-1] if labels else None))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            nodes, labels = [], []
        if len(nodes) <= CELLS and (len(solved) > 1 or set(labels) - {None, *solved}):
            return self.separated(cell.source, nodes, labels)
        return [labelled(cell.source, min(solved, default=None))]

    def separated(self, source, nodes, labels):
        """The statements of a source; those that belong together are one cell.

        One that belongs to none gets a separate cell, so its error costs nothing else.
        """
        lines, found, before = source.split("\n"), [], None
        starts = [min([node.lineno, *(decorator.lineno for decorator in
                                      getattr(node, "decorator_list", []))])
                  for node in nodes]
        for node, name, start, end in zip(nodes, labels, starts,
                                          [*starts[1:], len(lines) + 1]):
            text = "\n".join(lines[start - 1:end - 1])
            if name == TEXT_ONLY:
                said = getattr(getattr(node, "value", None), "value", None)
                if isinstance(said, str) and "generated by Colab" not in said:
                    found.append(new_markdown_cell(plain(said).strip()))
            elif name in self.locked:
                if name != before:
                    found.append(labelled(self.locked[name], name))
            elif name and name == before:
                found[-1].source += "\n" + text
            elif text.strip():
                found.append(labelled(text, name))
            before = name
        for cell in found:
            cell.source = cell.source.strip("\n")
        return [cell for cell in found if cell.source.strip()]

    def label(self, node, before):
        """The grade_id of the cell that a statement belongs to, or None."""
        known = self.statements.get(ast.dump(node), [])
        if len(known) == 1 or before in known:
            return before if before in known else known[0]
        if known or isinstance(node, ast.Expr) and isinstance(
                node.value, ast.Constant):
            return TEXT_ONLY
        names = [f"def {getattr(node, 'name', None)}", *(
            getattr(target, "id", None) for target in getattr(node, "targets", []))]
        return next((self.solutions[name] for name in names
                     if name in self.solutions), None)


def labelled(source, name):
    return new_code_cell(source, metadata={"nbgrader": {"grade_id": name}})
