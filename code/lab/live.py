"""The code of slides in a kernel: each module in its own namespace, with its edits.

A deck's page calls prepare once and run for every snippet; see slides/engine/ and
static/live/ for the other end.
"""

import ast
import asyncio
import contextlib
import importlib.util
import inspect
import io
import linecache
import os
import re
import sys
import textwrap
import tokenize

import jupytext
from IPython import get_ipython
from IPython.display import display

from lab import (
    UserError,
    cli,
    live_output,
    live_shapes,
    results,
    runs,
    source,
    training,
)

ARGUMENTS = "arguments"   # the demo cell that begins a run
AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_modules = {}


def prepare(names):
    """Import these modules, so that their first run need not wait for it."""
    live_output.watch()
    for name in names:
        try:
            _module(name).refresh()
        except Exception:  # it is shown where somebody runs the module
            continue


def run(name, symbol, text):
    """Run `text`, which stands on a slide for `symbol` of code/NAME.py.

    symbol: a definition, `Class` or `Class.method`, which replaces the
    module's own, for all that is built on it; or a demo cell's title in lower case
    with dashes, whose body runs in the module's namespace. A module whose file has
    changed is read again first, and loses its edits.

    Shows what the last expression gives, as a notebook does, and takes its magics,
    !commands and top-level await. Raises Stopped where
    the code was interrupted or failed, with a traceback that starts at the slide.
    """
    failed = None
    with live_output.limited():
        try:
            module = _module(name)
            module.refresh()
            training.watcher = live_output.Curve()
            with _magics_in(module.namespace):
                module.run_text(symbol, _without_magics(text))
        except (Exception, KeyboardInterrupt, SystemExit,
                asyncio.CancelledError) as error:
            failed = live_output.Stopped(error)
        finally:
            training.watcher = None
        if failed:   # out of `except`: IPython shows a group of errors in its own way
            raise failed


def repeat(request):
    """Display what the run of a request has sent, as [type, content].

    What its threads send comes before and is part of it, or comes after it.
    """
    with live_output.silence():
        display({"application/json": live_output.sent(request), "text/plain": ""},
                raw=True)


def watch_shapes(name, symbol, on):
    """Note from now on what shapes the forward of a class computes, or no longer.

    symbol: the class, or its forward.
    """
    module = _module(name)
    module.refresh()
    owner = symbol.removesuffix(".forward")
    (module.watched.add if on else module.watched.discard)(owner)
    module.watch()


def shapes(name, symbol):
    """{line of the file: shape} of its latest call, for display(…, raw=True)."""
    watch = _module(name).watches.get(symbol.removesuffix(".forward"))
    return {"application/json": watch.shapes if watch else {}, "text/plain": ""}


def reset(name, symbol):
    """Forget an edit of a definition."""
    module = _module(name)
    if not module.refresh() and module.edits.pop(symbol, None) is not None:
        module.execute()


def notebook(name):
    """The module as a notebook, its edits included, for display(…, raw=True)."""
    module = _module(name)
    module.refresh()
    text = "\n".join(module.with_edits(module.edits))
    return _plain(jupytext.writes(jupytext.reads(text, "py:percent"), "ipynb"))


def save(name, symbol, text, copy):
    """Write the module with `text` for `symbol` to out/live/COPY.py, a new file."""
    stem = copy.strip().removesuffix(".py")
    if not re.fullmatch(r"[\w-]+", stem):
        return _plain("give the copy a name of letters, digits, - and _")
    module = _module(name)
    module.refresh()
    path = cli.ROOT / "out" / "live" / f"{stem}.py"
    if path.exists():
        return _plain(f"out/live/{stem}.py is there already: give another name")
    lines = module.with_edits({**module.edits, symbol: text})
    try:
        with results.atomic(path) as temporary:
            temporary.write_text("\n".join(lines), "utf-8")
    except UserError as error:
        return _plain(str(error))
    return _plain(f"saved as out/live/{stem}.py")


def _without_magics(text):
    """The text as Python, where it has %magics or !commands of IPython."""
    try:
        compile(text, "slide", "exec", ast.PyCF_ONLY_AST | AWAIT)
    except SyntaxError:
        return get_ipython().input_transformer_manager.transform_cell(text)
    return text


def _is_quiet(text):
    """Whether code ends with a semicolon, which tells a notebook to show no value."""
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline)
              if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE,
                                    tokenize.INDENT, tokenize.DEDENT,
                                    tokenize.ENDMARKER)]
    return bool(tokens) and tokens[-1].string == ";"


@contextlib.contextmanager
def _magics_in(namespace):
    """Let %timeit and the others see the module's names."""
    shell = get_ipython()
    namespace.setdefault("_dh", shell.user_ns["_dh"])   # where %cd has been
    before, shell.user_ns = shell.user_ns, namespace
    try:
        yield
    finally:
        shell.user_ns = before


def _plain(text):
    return {"text/plain": text}


def _module(name):
    if name not in _modules:
        _modules[name] = LiveModule(name)
    return _modules[name]


class LiveModule:
    """A module of code/ as the slides have made it."""

    def __init__(self, name):
        self.name, self.path = name, cli.CODE / f"{name}.py"
        self.text = None      # of the file, as it was last read
        self.edits = {}       # {symbol: text}
        self.run = self.args = None
        self.watched = set()  # classes
        self.watches = {}     # {class: live_shapes.Watch}

    @property
    def namespace(self):
        return sys.modules[self.name].__dict__

    def refresh(self):
        """Execute the module if it, or one that it imports, is new or has changed.

        Returns whether that was so.
        """
        text = source.read(self.path)
        imported = source.imported_modules(text, cli.CODE)
        changed = [_module(file.stem).refresh() for file in imported
                   if file != self.path]
        if text == self.text and not any(changed):
            return False
        self.read(text)
        self.edits.clear()
        try:
            self.execute()
        except BaseException:
            self.text = None   # what does not run is not taken for read
            raise
        return True

    def read(self, text):
        self.text, self.lines = text, source.lines_of(text)
        self.tree = ast.parse(text, str(self.path))
        self.spans = source.definitions(text)
        self.cells = {key: (cell.first, cell.last)
                      for key, cell in source.cells(text).items() if cell.is_demo}
        self.run = self.args = None

    def execute(self):
        """Run all definitions again, with the edits."""
        if self.name not in sys.modules:
            spec = importlib.util.spec_from_file_location(self.name, self.path)
            sys.modules[self.name] = importlib.util.module_from_spec(spec)
        linecache.checkcache(str(self.path))
        for node in self.tree.body:
            first, last = source.span(node)
            edits = {symbol: text for symbol, text in self.edits.items()
                     if first <= self.spans[symbol][0] <= last}
            if edits:
                node = self.edited(first, last, edits)
                node.body = [part for part in node.body
                             if not isinstance(part, ast.Expr)]
                filename = self.edited_file(edits)
            else:
                node, filename = ast.Module([node], []), str(self.path)
            exec(compile(node, filename, "exec"), self.namespace)
        self.watches = {}  # they were of the classes before
        self.watch()

    def watch(self):
        """Watch the classes that are to be watched, and no others."""
        for name in set(self.watches) - self.watched:
            self.watches.pop(name).end()
        for name in self.watched - set(self.watches):
            owner = self.namespace.get(name)
            if isinstance(owner, type) and "forward" in vars(owner):
                first, last = self.spans[name]
                edits = {symbol: text for symbol, text in self.edits.items()
                         if symbol.split(".")[0] == name}
                tree = self.edited(first, last, edits)
                self.watches[name] = live_shapes.Watch(
                    owner, tree, self.edited_file(edits) if edits else str(self.path))

    def edited(self, first, last, edits):
        """The tree of lines first to last with their edits, numbered as in the file."""
        lines = self.with_edits(edits)
        end = last + len(lines) - len(self.lines)
        return _parse(lines[first - 1:end], first, self.edited_file(edits))

    def with_edits(self, edits):
        """The file's lines; the text of each edit as far in as what it replaces."""
        lines, spans = list(self.lines), self.spans | self.cells
        for symbol, text in sorted(edits.items(), reverse=True,
                                   key=lambda edit: spans[edit[0]]):
            first, last = spans[symbol]
            indent = re.match(r"\s*", lines[first - 1])[0]
            lines[first - 1:last] = [indent + line if line.strip() else ""
                                     for line in text.splitlines()]
        return lines

    def edited_file(self, edits):
        return f"{self.path.name} ({', '.join(edits)}, edited)"

    def run_text(self, symbol, text):
        if symbol in self.cells:
            self.run_cell(symbol, text)
        elif symbol in self.spans:
            self.define(symbol, text)
        else:
            raise LookupError(f"code/{self.name}.py no longer has {symbol}: load the "
                              "page again")

    def define(self, symbol, text):
        """Replace a definition of the module by text, or restore it."""
        first, _ = self.spans[symbol]
        before, edits = dict(self.edits), dict(self.edits)
        edits.pop(symbol, None)
        if text.rstrip() != self.own_text(self.spans[symbol]):
            edits[symbol] = text.rstrip()
        tree = _parse(text.splitlines(), first, self.edited_file([symbol]))
        if edits != before:
            self.edits = edits
            try:
                self.execute()
            except BaseException:
                self.edits = before
                self.execute()
                raise
        tree.body = [part for part in tree.body if isinstance(part, ast.Expr)]
        self.evaluate(tree, self.edited_file([symbol]), _is_quiet(text))

    def run_cell(self, symbol, text):
        """Run a demo cell's body, with what the module's arguments are here."""
        if symbol != ARGUMENTS and ARGUMENTS in self.cells:
            if self.run is None:
                self.run_cell(ARGUMENTS, self.own_text(self.cells[ARGUMENTS]))
            runs.use(self.run)
            self.namespace["args"] = self.args
        filename = f"{self.path.name} ({symbol})"
        first, _ = self.cells[symbol]
        with _module_of_runs(self.path.stem):
            self.evaluate(_parse(text.splitlines(), first, filename), filename,
                          _is_quiet(text))
        if symbol == ARGUMENTS:
            self.run, self.args = runs.current(), self.namespace["args"]

    def own_text(self, span):
        """Lines of the file, first to last, without the indentation of all of them."""
        first, last = span
        return textwrap.dedent("\n".join(self.lines[first - 1:last]))

    def evaluate(self, tree, filename, is_quiet):
        """Execute a tree in the namespace; show a last expression's value, or not."""
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = tree.body.pop()
        self.execute_code(compile(tree, filename, "exec", AWAIT))
        if last is not None:
            value = self.execute_code(
                compile(ast.Expression(last.value), filename, "eval", AWAIT))
            if value is not None and not is_quiet:
                display(value)

    def execute_code(self, code):
        """Execute code that may await; returns its value."""
        awaits = code.co_flags & inspect.CO_COROUTINE
        if awaits or "asyncio" in code.co_names:
            import nest_asyncio2  # which ipykernel needs, too
            nest_asyncio2.apply()  # the kernel's own loop runs already
        value = eval(code, self.namespace)
        if not awaits:
            return value
        loop = asyncio.get_running_loop()
        task = loop.create_task(value)
        try:
            return loop.run_until_complete(task)
        finally:
            task.cancel()   # where it was stopped


@contextlib.contextmanager
def _module_of_runs(name):
    """Let cli.begin know which module's run it begins."""
    os.environ["LAB_MODULE"] = name
    try:
        yield
    finally:
        del os.environ["LAB_MODULE"]


def _parse(lines, first, filename):
    """The tree of lines that begin at line `first` of a file; errors can show them."""
    padded = [""] * (first - 1) + list(lines)
    text = "\n".join(padded) + "\n"
    linecache.cache[filename] = len(text), None, text.splitlines(True), filename
    return ast.parse(text, filename)
