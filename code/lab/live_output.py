"""What running code sends to a slide: bounded text, figures in both themes, curves."""

import contextlib
import io
import math
import sys
import time
import traceback
from pathlib import Path

from IPython import get_ipython
from IPython.display import display

from lab import cli
from lab.look import darken

DARK = "application/vnd.lab.dark-svg+xml"
CURVE = "application/vnd.lab.curve+json"
MOST_TEXT, TAIL = 100_000, 4_000     # characters of a run
MOST_DATA = 8_000_000                # characters of a figure or table
MOST_RUNS = 8                        # whose messages are kept
REDRAW = 0.5                         # seconds between two drawings of a curve


_kept = {}  # {id of a request: the [type, content] of what its run has sent}


def sent(request):
    """What the run of a request has sent, as [type, content], again: a page that was
    loaded anew, or whose connection broke, may have missed some of it."""
    messages = []
    for kind, content in _kept.get(request, []):
        if kind == "stream" and messages and messages[-1][0] == kind:
            messages[-1][1]["text"] += content["text"]
        else:
            messages.append([kind, dict(content)])
    return messages


class Stopped(Exception):
    """Ends a run; what IPython shows of it starts at the slide's code."""

    def __init__(self, error):
        super().__init__(str(error))
        self.lines = told(error)

    def _render_traceback_(self):
        return self.lines


def told(error):
    """What to show of an error: the lines of code/ and the message."""
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
    messages = _kept[get_ipython().kernel.get_parent()["header"]["msg_id"]] = []
    for request in list(_kept)[:-MOST_RUNS]:
        del _kept[request]
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Limited(stream, messages) for stream in streams)
    publisher = get_ipython().display_pub

    def hook(message):
        _keep(messages, message["header"]["msg_type"], _prepared(message)["content"])
        return message

    publisher.register_hook(hook)
    try:
        yield
    finally:
        publisher.unregister_hook(hook)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Limited):
                stream.end()
        sys.stdout, sys.stderr = streams
        if isinstance(error := sys.exception(), Stopped):
            messages.append(["stream", {"text": "\n".join(error.lines) + "\n"}])


class Limited(io.TextIOBase):
    """A stream that passes on its first MOST_TEXT characters and its last TAIL."""

    def __init__(self, stream, messages):
        self.stream, self.messages, self.room = stream, messages, MOST_TEXT
        self.omitted, self.tail = 0, ""

    @property
    def encoding(self):
        return self.stream.encoding

    def write(self, text):
        # what a carriage return begins takes the place of what stood there
        cost = len(text) if "\r" not in text else len(text) // 10
        if cost <= self.room:
            self.room -= cost
            self.send(text)
        else:
            self.send(text[:self.room])
            rest = text[self.room:]
            self.room = 0
            self.omitted += len(rest)
            self.tail = (self.tail + rest[-TAIL:])[-TAIL:]
        return len(text)

    def send(self, text):
        self.stream.write(text)
        self.messages.append(["stream", {"text": text}])

    def flush(self):
        self.stream.flush()

    def writable(self):
        return True

    def end(self):
        if self.omitted > len(self.tail):
            self.send(f"\n… {self.omitted - len(self.tail):,} characters left out …\n")
        if self.tail:
            self.send(self.tail)


def _keep(messages, kind, content):
    """Note a message; one that updates a display takes the place of what it showed."""
    name = content.get("transient", {}).get("display_id")
    for earlier in messages if kind == "update_display_data" else []:
        if earlier[1].get("transient", {}).get("display_id") == name:
            earlier[1]["data"] = content["data"]
            return
    messages.append([kind, dict(content)])


def _prepared(message):
    """Add to a figure its dark variant; leave out what is too large to be sent."""
    data = message["content"].get("data", {})
    for kind, value in list(data.items()):
        size = len(value) if isinstance(value, str) else 0
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
