"""No keyboard on a slide: what would wait for one fails at once and says what to do."""

import bdb
import getpass
import io
import os
import sys

import IPython.terminal.embed
from IPython import get_ipython

INPUT = ("nobody can type here: write the value into the code, as in "
         'name = "Ada"')
DEBUGGER = ("no debugger runs on a slide: print what you want to see, or open the "
            "module in a notebook")


class NotOnSlides(RuntimeError):
    """What needs a keyboard; its message is for the slide."""


def refuse():
    """Let input(), getpass, sys.stdin and debuggers fail from now on."""
    shell = get_ipython()
    shell.kernel.raw_input = _refusing(f"input(): {INPUT}")
    shell.kernel.getpass = _refusing(f"getpass(): {INPUT}")
    getpass.fallback_getpass = shell.kernel.getpass   # where it was bound before
    sys.stdin = NoInput()
    IPython.embed = IPython.terminal.embed.embed = _refusing(DEBUGGER)
    sys.breakpointhook = _refusing(DEBUGGER)
    bdb.Bdb.reset = _refusing(DEBUGGER)   # each use of a debugger begins with it
    for magic in ("debug", "pdb"):
        shell.register_magic_function(_refusing(DEBUGGER), magic_name=magic)
    if os.name != "nt":
        run = shell.system
        shell.system = lambda command: run(f"exec < /dev/null; {command}")


def _refusing(message):
    def refuse(*args, **options):
        raise NotOnSlides(message)

    return refuse


class NoInput(io.TextIOBase):
    """A standard input that says that there is none."""

    read = readline = readlines = __next__ = _refusing(f"sys.stdin: {INPUT}")

    def readable(self):
        return True

    @property
    def buffer(self):
        return self

    def __iter__(self):
        return self
