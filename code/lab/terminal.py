"""Standard output and standard error that never end a program, and paths in them."""

import codecs
import io
import os
import sys
import unicodedata

PLAIN = {"✓": "ok", "✗": "no", "→": "->", "−": "-", "–": "-", "—": "-", "×": "x",
         "±": "+-", "·": "*", "√": "sqrt", "…": "...", "½": "1/2", "ß": "ss"}


def prepare():
    """Let a program go on where it prints what nobody can show, or nobody reads.

    A character that the encoding lacks is written in others; what goes to a reader
    that has ended (`| head -1`), or to a full disk, is dropped.
    """
    codecs.register_error("plain", _in_plain)
    for number, name in [(1, "stdout"), (2, "stderr")]:
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):  # a notebook's, or a test's
            continue
        if stream is None:  # closed by whoever started this
            stream = open(os.devnull, "w")
        elif not stream.isatty():
            stream = _lasting(stream, number)
        stream.reconfigure(errors="plain")
        setattr(sys, name, stream)


def shown(path):
    """A path as one names it from the working directory."""
    try:
        return os.path.relpath(path)
    except ValueError:  # on Windows, on another drive
        return str(path)


def _in_plain(error):
    """Other characters for those that an encoding lacks."""
    return "".join(map(_plain, error.object[error.start:error.end])), error.end


def _plain(character):
    letter = unicodedata.normalize("NFKD", character) if character.isalpha() else ""
    return PLAIN.get(character) or letter.encode("ascii", "ignore").decode() or "?"


def _lasting(stream, number):
    stream.flush()
    file = _Lasting(number, "wb", closefd=False)
    file = file if stream.write_through else io.BufferedWriter(file)
    return io.TextIOWrapper(file, stream.encoding, line_buffering=stream.line_buffering,
                            write_through=stream.write_through)


class _Lasting(io.FileIO):
    """What can no longer be written to is nowhere from then on."""

    def write(self, content):
        try:
            return super().write(content)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError) and self.fileno() == 1:
                print(f"the output cannot be written: {error.strerror}",
                      file=sys.stderr)
            return len(content)
