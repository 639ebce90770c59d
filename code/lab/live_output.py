"""What running code sends to a slide: bounded text, figures in both themes, curves."""

import base64
import contextlib
import contextvars
import functools
import io
import json
import math
import sys
import threading
import time
import traceback
import types
import warnings
from pathlib import Path

from IPython import get_ipython
from IPython.display import display

from lab import cli, live_input
from lab.look import darken

DARK = "application/vnd.lab.dark-svg+xml"
CURVE = "application/vnd.lab.curve+json"
INLINE = "module://matplotlib_inline.backend_inline"
MOST_TEXT, TAIL = 100_000, 4_000     # characters of a run
MOST_DATA = 8_000_000                # characters of a figure or table
MOST_RUNS = 8                        # whose messages are kept
REDRAW = 0.5                         # seconds between two drawings of a curve


_runs = {}  # {id of a request: its Run}
_writing = threading.RLock()


@functools.cache
def watch():
    """Take charge, once, of all that this kernel sends, by any thread or task.

    Code that continues after its run, in a thread or a task, still sends on
    behalf of that run.
    """
    import matplotlib
    matplotlib.use(INLINE)   # $MPLBACKEND may have named one that shows nothing
    shell = get_ipython()
    shell._tee = lambda channel: contextlib.nullcontext()   # it would keep all text
    sys.stdout, sys.stderr = Limited(sys.stdout), Limited(sys.stderr)
    # its hooks are those of a thread each: these are of every one
    shell.display_pub._thread_local = types.SimpleNamespace(hooks=[_shown])
    start = threading.Thread.start

    def start_in_context(thread):
        context, run = contextvars.copy_context(), thread.run
        thread.run = lambda: context.run(run)
        start(thread)

    threading.Thread.start = start_in_context
    threading.excepthook = _tell_failure
    shell.set_hook("show_in_pager", lambda shell, text, start=0, screen_lines=0: (
        display(text, raw=True)))
    _draw_progress_as_text()
    live_input.refuse()


def _tell_failure(thread):
    if thread.exc_type is not SystemExit:
        print(*describe(thread.exc_value), sep="\n", file=sys.stderr)


class Limited(io.TextIOBase):
    """A stream of the kernel that passes on what the run may send that writes to it."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    @property
    def encoding(self):
        return self.stream.encoding

    def write(self, text):
        run = _runs.get(self.stream.parent_header.get("msg_id"))
        with _writing:
            self.stream.write(run.admit(text) if run else text)
        return len(text)

    def flush(self):
        self.stream.flush()

    def fileno(self):
        return self.stream.fileno()

    def writable(self):
        return True


@contextlib.contextmanager
def silence():
    """While the block runs, no thread prints; what they have printed is sent before.

    Without it, what is printed while something is displayed would be sent first.
    """
    with _writing:
        sys.stdout.flush()
        sys.stderr.flush()
        yield


def _shown(message):
    """Bound and keep what a run displays; see ipykernel's register_hook."""
    run = _runs.get(message["parent_header"].get("msg_id"))
    if run:
        kind, content = message["header"]["msg_type"], _prepared(message)["content"]
        run.keep(kind, content)
    return message


def _draw_progress_as_text():
    """Make tqdm.auto and tqdm.notebook what a page without widgets can show."""
    import tqdm.notebook

    class Bar(tqdm.std.tqdm):
        def __init__(self, *args, display=True, **options):
            super().__init__(*args, **options)

    tqdm.notebook.tqdm = tqdm.notebook.tqdm_notebook = Bar
    tqdm.notebook.trange = tqdm.notebook.tnrange = (
        lambda *args, **options: Bar(range(*args), **options))
    with warnings.catch_warnings(action="ignore"):
        import tqdm.auto  # noqa: F401 it warns of a notebook, once


def sent(request):
    """What the run of a request has sent, as [type, content], again: a page that was
    loaded again, or whose connection broke, may have missed some of it."""
    return _runs[request].merged() if request in _runs else []


class Stopped(Exception):
    """Ends a run; what IPython shows of it starts at the slide's code."""

    def __init__(self, error):
        super().__init__(str(error))
        self.lines = describe(error)

    def _render_traceback_(self):
        return self.lines


def describe(error):
    """Describe an error: the lines of code/ and the message."""
    red, dim, plain = "\033[31m", "\033[2m", "\033[0m"
    if isinstance(error, KeyboardInterrupt):
        return [f"{dim}Stopped.{plain}"]
    lines, others = [], 0
    for frame in traceback.extract_tb(error.__traceback__):
        if not _is_ours(frame.filename):
            others += 1
            continue
        lines += _omitted(others) if lines else []
        others = 0
        name = Path(frame.filename).name
        lines += [f"{dim}{name}:{frame.lineno} in {frame.name}{plain}",
                  f"    {frame.line}"]
    lines += _omitted(others) if lines else []
    if len(lines) > 24:
        lines[12:-8] = [f"{dim}  …{plain}"]
    if isinstance(error, live_input.NotOnSlides):
        return [*lines, f"{red}{error}{plain}"]
    *where, what = traceback.TracebackException.from_exception(
        error).format_exception_only()
    return [*lines, *(line.rstrip() for line in where), f"{red}{what.strip()}{plain}"]


def _is_ours(filename):
    return Path(filename).parent == cli.CODE or filename.endswith(")")


def _omitted(n):
    return [f"\033[2m  … {n} lines of libraries\033[0m"] if n else []


@contextlib.contextmanager
def limited():
    """Cut what the block prints or displays where a page could not take it.

    What it sends is kept, for `sent`.
    """
    watch()
    request = get_ipython().kernel.get_parent()["header"]["msg_id"]
    run = _runs[request] = Run()
    for earlier in list(_runs)[:-MOST_RUNS]:
        del _runs[earlier]
    streams = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams   # what the block may have replaced
        sys.stdout.write(run.end())
        if isinstance(error := sys.exception(), Stopped):
            run.keep("stream", {"text": "\n".join(error.lines) + "\n"})


class Run:
    """What a run of a block has sent; text as far as there is room for it."""

    def __init__(self):
        self.messages = []   # [type, content]
        self.room, self.omitted, self.tail, self.is_over = MOST_TEXT, 0, "", False

    def admit(self, text):
        """The part of a text that may be sent now."""
        # text after a carriage return replaces what stood there
        cost = len(text) if "\r" not in text else len(text) // 100
        if cost <= self.room:
            self.room -= cost
            return self.keep_text(text)
        admitted, rest = text[:self.room], text[self.room:]
        if self.is_over:   # and who knows when the last thread is
            admitted += "\n… the rest is left out …\n" if self.room else ""
        else:
            self.omitted += len(rest)
            self.tail = (self.tail + rest[-TAIL:])[-TAIL:]
        self.room = 0
        return self.keep_text(admitted)

    def end(self):
        """The end of a text that was too long; what comes now, comes from threads."""
        left_out = self.omitted - len(self.tail)
        note = f"\n… {left_out:,} characters left out …\n" if left_out > 0 else ""
        rest = note + self.tail
        self.room, self.is_over = max(self.room, TAIL + len(rest)), True
        return rest

    def keep_text(self, text):
        if text:
            self.keep("stream", {"text": text})
        return text

    def keep(self, kind, content):
        """Note a message; one that updates a display replaces what it showed,
        and nothing is left of what was cleared."""
        if kind == "clear_output":
            self.messages.clear()
        name = content.get("transient", {}).get("display_id")
        for earlier in self.messages if kind == "update_display_data" else []:
            if earlier[1].get("transient", {}).get("display_id") == name:
                earlier[1]["data"] = content["data"]
                return
        self.messages.append([kind, dict(content)])

    def merged(self):
        """The messages, all text between two others in one."""
        messages = []
        for kind, content in list(self.messages):
            if kind == "stream" and messages and messages[-1][0] == kind:
                messages[-1][1]["text"] += content["text"]
            else:
                messages.append([kind, dict(content)])
        for kind, content in messages:
            if kind == "stream" and len(content["text"]) > MOST_TEXT:
                lines = content["text"].split("\n")
                content["text"] = "\n".join(map(_rewritten, lines))
        return messages


def _rewritten(line):
    """What a line shows that a progress bar has begun again and again."""
    return line[line.rstrip("\r").rfind("\r") + 1:]


def _prepared(message):
    """Add to a figure its dark variant; leave out what is too large to be sent."""
    data = message["content"].get("data", {})
    for kind, value in list(data.items()):
        if isinstance(value, bytes):   # such as a PNG; IPython encodes it only later
            data[kind] = value = base64.b64encode(value).decode()
        size = len(value if isinstance(value, str) else json.dumps(value))
        most = MOST_TEXT if kind == "text/plain" else MOST_DATA
        if size > most:
            del data[kind]
            start = value[:MOST_TEXT] if kind == "text/plain" else ""
            data.setdefault("text/plain", "")
            data["text/plain"] += (f"{start}\n… {size - len(start):,} characters of "
                                   f"{kind} left out …")
    if "image/svg+xml" in data:
        data[DARK] = darken(data["image/svg+xml"])
    return message


class Curve:
    """The training loss of each training of a run, drawn as it goes on."""

    def __init__(self):
        self.drawn, self.lines, self.handle = 0.0, {}, None

    def __call__(self, name, epoch, epochs, means):
        """See lab.training.watcher."""
        now = time.perf_counter()
        if now - self.drawn < REDRAW:
            return
        self.drawn = now
        loss = means().get("loss")
        if loss is None:
            return
        loss = float(loss)
        self.lines.setdefault(name, []).append(
            [round(epoch, 3), loss if math.isfinite(loss) else None])
        bundle = {CURVE: {"epochs": epochs, "lines": self.lines},
                  "text/plain": f"{name}: loss {loss:.4g}, epoch {epoch:.1f}"}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)
