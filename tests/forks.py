"""Python programs that need not import torch: forks of one that has.

As a program it reads requests, one JSON object a line, and answers each with the exit
status of the child that it forks for it. Not imported here are lab, and matplotlib,
which reads a user's settings when it is.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 150   # of a child, which then ends
LOADED = ["IPython.core.interactiveshell", "ignite.engine", "ignite.handlers",
          "ignite.metrics", "PIL.Image", "sklearn.datasets", "sklearn.model_selection",
          "tokenizers", "torch.utils.flop_counter", "torchvision"]


class Forks:
    """Runs modules as scripts or notebooks, each in a separate child."""

    def __init__(self, folder):
        self.folder = folder   # for what the children print
        self.server = subprocess.Popen(
            [sys.executable, __file__], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})

    def script(self, path, *flags, cwd, **environment):
        """`python path flags`, as subprocess.run does it."""
        return self.ask(path=path, flags=flags, cwd=cwd, environment=environment)

    def cells(self, cells, cwd, **environment):
        """The code of cells in IPython, then on the last line what they displayed:
        the metadata of each."""
        return self.ask(cells=cells, cwd=cwd,
                        environment=environment | {"IPYTHONDIR": self.folder})

    @property
    def trainings(self):
        """Of the latest script: the calls it had precomputed, and those it made."""
        return [set(calls) for calls in json.loads(
            (self.folder / "trainings").read_text("utf-8"))]

    def ask(self, **request):
        files = [self.folder / "stdout", self.folder / "stderr"]
        request |= {"files": files, "trainings": self.folder / "trainings"}
        print(json.dumps(request, default=str), file=self.server.stdin, flush=True)
        status = int(self.server.stdout.readline())
        return subprocess.CompletedProcess(
            request, status, *(file.read_text("utf-8") for file in files))

    def close(self):
        self.server.stdin.close()
        self.server.wait()


def serve():
    """Fork a child for each request; returns it in the child."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    raise SystemExit


def prepare(cwd, environment, files):
    """Make this child what a new process would be."""
    signal.alarm(SECONDS)
    os.chdir(cwd)
    os.environ |= environment
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, (file, stream) in enumerate(zip(files, [sys.stdout, sys.stderr]), 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        stream.reconfigure(encoding=environment.get("PYTHONIOENCODING"),
                           errors=stream.errors)


def run_script(path, file):
    """Run a script; note which calls it has precomputed, and which it makes."""
    from lab import parallel

    asked = []
    parallel.precompute = lambda calls: asked.extend(
        f"{function.__name__}{function.key_of(*arguments)}"
        for function, *arguments in calls)
    runpy.run_path(path, run_name="__main__")
    made = [f"{name.rpartition('.')[2]}{key}" for name, kept in parallel._kept.items()
            for key in kept]
    Path(file).write_text(json.dumps([asked, made]), "utf-8")


def run_cells(cells):
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(
        config=Config(HistoryManager={"enabled": False}),
        display_pub_class=CapturingDisplayPublisher)
    for cell in cells:
        shell.run_cell(cell).raise_error()
    print()
    print(json.dumps([shown["metadata"] for shown in shell.display_pub.outputs]))


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)

    request = serve()
    prepare(request["cwd"], request["environment"], request["files"])
    if "cells" in request:
        sys.path[0] = request["cwd"]
        run_cells(request["cells"])
    else:
        path = Path(request["cwd"], request["path"])
        sys.argv, sys.path[0] = [request["path"], *request["flags"]], str(path.parent)
        run_script(request["path"], request["trainings"])
