"""The current run: the flags that a module was given, and what it notes.

cli.begin() begins it. The rest of lab reads it by current(), and notes what it has
found by its methods and by note_samples().
"""

import os
import platform
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from lab.source import module_hash, training_hash

_current = None


class Run:
    """One execution of a module: what it is called, writes to and measures.

    name is "demo" or a data set's, out the folder for img/ and results/. display
    is True in a notebook or on a slide, where saving shows and writes nothing.
    processes: how many may train side by side. settings: cli.values' of the module.
    tune: whether compare.train is to choose again. changed: the flags that ask for
    more than another learning rate.
    """

    def __init__(self, args, name, script, command, processes, settings, tune,
                 changed):
        self.module = script.stem if script else notebook_module()
        self.name, self.script, self.command = name, script, command
        self.data, self.seed, self.device = args.data, args.seed, args.device
        self.out, self.processes = Path(args.out), processes
        self.settings = settings
        self.display = script is None
        self.hash = module_hash(script) if script else None  # of the code that runs
        self.training_hash = training_hash(script) if script else None
        self.values, self.samples, self.checkpoints = {}, {}, set()
        self.choices, self.sides = {}, {}  # of compare.train
        self.tune, self.changed = tune, changed
        self.trainings = None  # the file for what a default demo's returned
        self.redrawn = False  # whether they were taken from it
        self.side_by_side = 1  # processes that did train
        self.peak_memory = 0  # MiB, of the one that needed most
        self.started, self.before = time.perf_counter(), 0.0

    def __getstate__(self):
        return vars(self) | {"before": 0.0}  # a worker process counts its own

    def provenance(self):
        """Where a figure or record comes from."""
        return {
            "module": self.module,
            "run": self.name,
            "hash": self.hash,
            "command": self.command,
            "seed": self.seed,
            "data": self.data,
            "versions": versions(),
            "date": datetime.now(timezone.utc).date().isoformat(),
        }

    def record(self, key, value):
        """Note a measured number or text."""
        self.values[key.removeprefix(f"{self.name}.")] = value

    def keep_trainings(self, file):
        """Let a later run of the code that trains as now draw from a file."""
        self.trainings = file

    def begin_checkpoints(self, name):
        """Note that a training can be resumed; ValueError if its name is taken."""
        if name in self.checkpoints:
            raise ValueError(f"two trainings of this run have the name {name!r}")
        self.checkpoints.add(name)

    def resume(self, seconds):
        """Count what an interrupted training had taken before."""
        self.before += seconds

    def leave_out(self, seconds):
        """Do not count what choosing learning rates took: a demo need not choose."""
        self.before -= seconds

    def seconds(self):
        """How long the run has taken so far, with what was resumed."""
        return time.perf_counter() - self.started + self.before

    def measured(self):
        """What a record says of the run, beside the numbers."""
        source = self.provenance()
        return {
            **{key: source[key] for key in ("hash", "command", "seed", "data")},
            "samples": self.samples,
            "seconds": round(self.seconds(), 1),
            "peak_memory_mib": max(peak_memory() or 0, self.peak_memory) or None,
            "hardware": hardware(self.device),
            "processes": self.side_by_side,
            "threads": torch.get_num_threads(),
            "versions": source["versions"],
            "date": source["date"],
            "sides": self.sides,
            "values": self.values,
        }

    def report(self):
        """What a worker process tells of this run; absorb() takes it."""
        return {"samples": self.samples, "checkpoints": self.checkpoints,
                "before": self.before, "memory": peak_memory()}

    def absorb(self, reports):
        """Add what worker processes, {process id: report()}, have told."""
        for told in reports.values():
            self.samples |= told["samples"]
            self.checkpoints |= told["checkpoints"]
            self.before += told["before"] / len(reports)
            self.peak_memory = max(self.peak_memory, told["memory"] or 0)
        self.side_by_side = max(self.side_by_side, len(reports))


def begin(args, name, script, command, processes=1, settings=None, tune=False,
          changed=""):
    """Begin a run; script: None in a notebook or on a slide. cli.begin calls this."""
    use(Run(args, name, script, command, processes, settings or {}, tune, changed))
    if int(os.environ.get("RANK", 0)) > 0:  # of torchrun's processes one reports
        _current.display = True
        sys.stdout = open(os.devnull, "w")


def notebook_module():
    """The module that is open as a notebook, or is on a slide."""
    path = os.environ.get("LAB_MODULE") or os.environ.get("JPY_SESSION_NAME")
    return Path(path or "notebook").stem


def use(run):
    """Make a Run the current one."""
    global _current
    _current = run


def current():
    """The current Run; RuntimeError if there is none."""
    if _current is None:
        raise RuntimeError("no run has begun: cli.begin(SETTINGS) begins one")
    return _current


def has_begun():
    """Whether there is a current run."""
    return _current is not None


def note_samples(**samples):
    """Note how many samples each part of the data set has; without a run, nothing."""
    if _current:
        _current.samples = samples


def cores():
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def hardware(device):
    """What this ran on, such as "2 CPU cores (x86_64)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"GPU ({platform.machine()})"
    return f"{cores()} CPU core{'s' * (cores() > 1)} ({platform.machine()})"


def peak_memory():
    """The most memory this process has had, in MiB; None where that is unknown."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) // 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2 ** 20 if sys.platform == "darwin" else 2 ** 10)


def versions():
    """The versions that a result depends on."""
    from importlib.metadata import version
    return {"python": platform.python_version(), "torch": torch.__version__,
            "torchvision": version("torchvision")}
