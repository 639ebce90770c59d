"""Call functions on data that nobody trusts, in a process that has limits.

A file of a few hundred bytes can make a parser take hours, gigabytes or the process
itself. Here it costs only the call that reads it.
"""

import multiprocessing
import os
from pathlib import Path

import psutil

from lab import UserError

try:
    import resource
except ImportError:   # Windows: only the time on the clock is limited
    resource = None

MEMORY = 2 ** 30   # bytes, beyond what the process has at its start
SECONDS = 10       # of a processor, for one call

# Processes are forked from one that has imported everything already.
PROCESSES = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
PROCESSES.set_forkserver_preload(["lab.grade"])


class Worker:
    """A process that calls functions within limits; it is replaced where one fails."""

    def __init__(self):
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def call(self, function, *arguments):
        """function(*arguments); UserError where it fails or takes more than it may."""
        if not self.process:
            os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
            self.connection, theirs = PROCESSES.Pipe()
            self.process = PROCESSES.Process(target=serve, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
        answer = None
        try:
            self.connection.send((function, arguments))
            if self.connection.poll(4 * SECONDS):
                answer = self.connection.recv()
        except (EOFError, OSError):
            pass   # it has come to its end
        finally:
            if not answer:
                self.close()
        result, problem = answer or (
            None, f"reading it takes more than {SECONDS} s or {MEMORY >> 20} MiB")
        if problem:
            raise UserError(problem)
        return result

    def close(self):
        if self.process:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None


def serve(connection):
    """Answer calls until the other side is gone."""
    memory = psutil.Process().memory_info().vms + MEMORY
    if resource:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        if resource:
            used = resource.getrusage(resource.RUSAGE_SELF)
            seconds = int(used.ru_utime + used.ru_stime) + SECONDS
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))
        try:
            answer = function(*arguments), None
        except UserError as error:
            answer = None, str(error)
        except MemoryError:
            return   # what it has left may be too little for the next one
        except Exception as error:   # libraries raise what they like on such a file
            answer = None, f"it cannot be read: {type(error).__name__}"
        connection.send(answer)
