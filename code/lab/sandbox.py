"""Execute a notebook that nobody trusts.

Its kernel runs in bubblewrap: no network, a read-only system without homes and without
this repository, a small /tmp of its own, an empty environment. A limit of time, memory,
output or processes that is passed ends it. After every cell the notebook is written
with its outputs, so that what was done stays, whatever comes after; its metadata say
why it "ended" early.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbgrader.preprocessors import Execute

from lab import UserError

MiB = 2 ** 20
MEMORY = 4096 * MiB    # of all processes together
THREADS = 256
OUTPUT = 64 * MiB      # of all cells together; of one cell KEPT characters are kept
KEPT = 1_000_000
SYSTEM = ["/usr", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime",
          "/etc/fonts", "/etc/passwd"]


def bubblewrap():
    """The program; UserError where it is missing or not allowed to work."""
    program = shutil.which("bwrap")
    if not program:
        raise UserError(
            "bubblewrap is missing (apt install bubblewrap; Linux only): without it a "
            "submission can do all that you can; grade in a Linux container or virtual "
            "machine, or, for work that you trust, with --unsafe")
    trial = subprocess.run([*wrapped({}), "true"], capture_output=True, text=True)
    if trial.returncode:
        raise UserError(
            f"bubblewrap does not work here: {trial.stderr.strip()} (it needs version "
            "0.8 and user namespaces; a container may forbid them)")
    return program


def wrapped(readable, writable=(), environment=None):
    """The command line before a program that puts it into the sandbox.

    readable: {path outside: path inside}; writable: paths, the same inside.
    """
    words = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid",
             "65534", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
             "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev",
             "--size", str(256 * MiB), "--tmpfs", "/dev/shm",
             "--size", str(1024 * MiB), "--tmpfs", "/tmp"]
    for path in map(Path, ["/bin", "/sbin", "/lib", "/lib32", "/lib64"]):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    pythons = {path: path for path in (sys.prefix, sys.base_prefix)}
    system = {path: path for path in SYSTEM}
    for outside, inside in (system | pythons | readable).items():
        words += ["--ro-bind-try", str(outside), str(inside)]
    for path in writable:
        words += ["--bind", str(path), str(path)]
    words += ["--remount-ro", "/", "--chdir", "/tmp", "--clearenv"]
    for name, value in (ENVIRONMENT | (environment or {})).items():
        words += ["--setenv", name, str(value)]
    return words


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",
               "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
               "PYTHONDONTWRITEBYTECODE": "1"}


def kernel_in(command, folder, sandboxed):
    """A class of kernel manager whose kernel starts with this command line."""
    class Kernel(AsyncKernelManager):
        def __init__(self, **options):
            # A path reaches into the sandbox, an address does not.
            where = {"transport": "ipc", "connection_file": str(folder / "k.json")}
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                             **(where if sandboxed else {}), **options)

        def format_kernel_cmd(self, extra_arguments=None):
            return command + super().format_kernel_cmd(extra_arguments)

        async def start_kernel(self, **options):
            await super().start_kernel(stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, **options)

        @property
        def kernel_spec(self):
            spec = super().kernel_spec
            spec.interrupt_mode = "message"   # a signal would end bubblewrap
            return spec

    return Kernel


class Run(Execute):
    """nbgrader's execution, with a limit for the whole and for what is printed."""

    def begin(self, path, cell_seconds, seconds):
        self.path, self.printed, self.killed = path, 0, None
        self.end = time.monotonic() + seconds
        self.timeout_func = lambda cell: max(1, min(
            cell.metadata.get("seconds", cell_seconds), self.end - time.monotonic()))

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type == "code":
            # Without history, so that no later cell finds a check in it.
            cell = self.execute_cell(cell, index, store_history=False)
        return cell, resources

    def process_message(self, message, cell, cell_index):
        content = message["content"]
        size = sum(len(str(value)) for value in content.values())
        self.printed += size
        cell.metadata["printed"] = cell.metadata.get("printed", 0) + size
        if self.printed > OUTPUT:
            self.kill(f"it printed more than {OUTPUT // MiB} MiB")
        if cell.metadata["printed"] > KEPT and message["msg_type"] != "status" and (
                message["msg_type"] != "error"):
            return None
        return super().process_message(message, cell, cell_index)

    def on_cell_executed(self, **reply):
        super().on_cell_executed(**reply)
        self.write()

    def on_cell_start(self, cell, cell_index):
        if time.monotonic() > self.end:
            raise TimeoutError

    def write(self, ended=None):
        if ended:
            self.nb.metadata["ended"] = ended
        unfinished = self.path.with_suffix(".unfinished")
        nbformat.write(self.nb, unfinished)
        os.replace(unfinished, self.path)

    def kill(self, why):
        if not self.killed:
            self.killed = why
        for process in family(self.km.provisioner.process.pid):
            try:
                process.kill()
            except psutil.Error:
                pass

    def watch(self, folder):
        """End the kernel when it uses too much; a thread of its own."""
        own = psutil.Process()
        while True:
            time.sleep(0.1)
            process = self.km and self.km.provisioner and self.km.provisioner.process
            if not process:
                continue
            memory = threads = 0
            for member in family(process.pid):
                try:
                    memory += member.memory_info().rss
                    threads += member.num_threads()
                except psutil.Error:
                    pass   # it has ended
            files = sum(file.stat().st_size for file in folder.iterdir())
            if memory > MEMORY:
                self.kill(f"it took more than {MEMORY // MiB} MiB of memory")
            elif threads > THREADS:
                self.kill(f"it started more than {THREADS} processes and threads")
            elif files > MiB:
                self.kill("it wrote to its kernel's folder")
            elif own.memory_info().rss > MEMORY // 2:
                self.kill("it printed more than this program can take")
                self.write(self.killed)
                os._exit(1)


def family(pid):
    """A process and all its descendants."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def execute(path, lab, cell_seconds, seconds, data, safe):
    """Execute the notebook at `path` and write its outputs into it.

    lab: the folder that `lab` is imported from; data: one that may be read, or None.
    Of a process of its own, which a submission may bring to its end.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as temporary:
        folder = Path(temporary)
        command = []
        if safe:
            readable = {lab: "/exercise"} | ({data: "/data"} if data else {})
            command = wrapped(readable, [folder], {"PYTHONPATH": "/exercise"} | (
                {"LAB_DATA": "/data"} if data else {}))
        else:
            os.environ["PYTHONPATH"] = str(lab)
        run = Run(kernel_manager_class=kernel_in(command, folder, safe),
                  shutdown_kernel="immediate", iopub_timeout=5)
        run.begin(path, cell_seconds, seconds)
        threading.Thread(target=run.watch, args=[folder], daemon=True).start()
        notebook, ended = nbformat.read(path, as_version=4), None
        try:
            run.preprocess(notebook, {"metadata": {"path": str(folder)}})
        except (DeadKernelError, RuntimeError):
            ended = run.killed or "it ended its own process"
        except (CellTimeoutError, TimeoutError):
            ended = run.killed or "it took too long and could not be stopped"
        run.write(ended)

