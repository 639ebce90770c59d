"""What a run measures: results/MODULE.json, which the slides take numbers from."""

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from lab import UserError, terminal

run = None  # the current Run, from begin(); None outside a run


class Run:
    """One execution of a module: what it is called, writes to and measures.

    name is "demo" or a data set's, out the folder for img/ and results/. display
    is True in a notebook or on a slide, where saving shows and writes nothing.
    """

    def __init__(self, args, script, command):
        self.module, self.name, self.data = args.module, args.run, args.data
        self.out, self.seed, self.command = Path(args.out), args.seed, command
        self.script, self.device = script, args.device
        self.display = script is None
        self.hash = module_hash(script) if script else None  # of the code that runs
        self.values, self.samples, self.checkpoints = {}, {}, set()
        self.started = time.perf_counter()

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


def begin(args, script, command):
    """Start the clock: lab.cli.arguments calls this. script: None on a slide."""
    global run
    run = Run(args, script, command)
    if int(os.environ.get("RANK", 0)) > 0:  # of torchrun's processes one reports
        run.display = True
        sys.stdout = open(os.devnull, "w")


def record(key, value):
    """Note a measured number, `test_accuracy` or `mnist.test_accuracy`.

    Or a text that says how it was measured, such as sacrebleu's signature.
    """
    if run is None:
        raise RuntimeError(f"results.record({key!r}): no run has begun; "
                           "cli.arguments() begins one")
    run.values[key.removeprefix(f"{run.name}.")] = _plain(value)


def record_runs(name, histories, *keys):
    """Record what trainings that differ in their seed only ended with.

    histories: training.fit's. NAME_KEY is the mean of KEY after the last epoch,
    NAME_KEY_lowest and NAME_KEY_highest its range; NAME_seconds the mean duration.
    """
    for key in keys:
        final = [history[key][-1] for history in histories]
        record(f"{name}_{key}", sum(final) / len(final))
        record(f"{name}_{key}_lowest", min(final))
        record(f"{name}_{key}_highest", max(final))
    seconds = sum(sum(history["seconds"]) for history in histories)
    record(f"{name}_seconds", seconds / len(histories))


def save(facts):
    """Print what this run measured and write it to OUT/results/MODULE.json.

    facts: {key: number}, computed from the model alone. The entries of other runs
    in that file stay. Raises UserError if the file is there but not a record.
    """
    facts = {key: _plain(value) for key, value in facts.items()}
    source = run.provenance()
    measured = {
        **{key: source[key] for key in ("hash", "command", "seed", "data")},
        "samples": run.samples,
        "seconds": round(time.perf_counter() - run.started, 1),
        "peak_memory_mib": peak_memory(),
        "hardware": hardware(run.device),
        "versions": source["versions"],
        "date": source["date"],
        "values": run.values,
    }
    print(f"\n{run.command}\n")
    samples = " and ".join(f"{n:,} {part}" for part, n in run.samples.items())
    if samples:
        print(f"  {samples} samples of {run.data}, seed {run.seed}")
    print(f"  {measured['seconds']} s on {measured['hardware']}, "
          f"at most {measured['peak_memory_mib']} MiB of memory")
    for title, values in [("measured", run.values), ("facts", facts)]:
        print(_table(title, values), end="")
    if run.display:
        return
    path = run.out / "results" / f"{run.module}.json"
    entries = read(path)
    entries["facts"] = {"hash": measured["hash"], "values": facts}
    entries[run.name] = measured
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(entries, indent=2, ensure_ascii=False) + "\n", "utf-8",
            errors="replace")  # a file's name in the command may be no text
    print(f"\nwrote {terminal.shown(path)}")


def read(path):
    """The entries of a record, {} if there is none; UserError if it is not one."""
    try:
        entries = json.loads(path.read_text("utf-8"))
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise ValueError("an entry is no object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a record ({error}): delete it")
    return entries


@contextlib.contextmanager
def atomic(path):
    """A temporary path beside `path` that takes its place if the block succeeds.

    Raises UserError if it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}")
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def module_hash(path):
    """SHA-256 of a module and the modules beside it that it imports, transitively.

    Blank and comment-only lines don't count. slides/engine/module.mjs does the same.
    """
    found, waiting = {}, [Path(path)]
    while waiting:
        module = waiting.pop()
        if module.stem in found:
            continue
        source = module.read_bytes().decode("utf-8")
        lines = [line.rstrip() for line in source.split("\n")]
        lines = [line for line in lines if line and not line.lstrip().startswith("#")]
        found[module.stem] = "\n".join(lines) + "\n"
        waiting += imported_modules(lines, module.parent)
    digest = hashlib.sha256()
    for name, source in sorted(found.items()):
        digest.update(f"{name}\n{source}".encode())
    return digest.hexdigest()


def imported_modules(lines, folder):
    """The files of the modules in `folder` that lines of Python import."""
    names = (re.match(r"\s*(?:from|import)\s+([A-Za-z_]\w*)", line, re.A)
             for line in lines)
    files = [folder / f"{name[1]}.py" for name in names if name]
    return [file for file in dict.fromkeys(files) if file.is_file()]


def hardware(device):
    """What this ran on, such as "2 CPU cores (x86_64)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"GPU ({platform.machine()})"
    cores = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
             else os.cpu_count())
    return f"{cores} CPU core{'s' * (cores > 1)} ({platform.machine()})"


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


def _plain(value):
    """A number as JSON has it: NaN and infinity, which no slide shows, are None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(title, values):
    """Lines `key  number`, the numbers aligned at the right; "" without values."""
    if not values:
        return ""
    texts = {key: f"{value:,}" if isinstance(value, int) else
             f"{value:.4g}" if isinstance(value, float) else str(value)
             for key, value in values.items()}
    width, digits = max(map(len, texts)), max(map(len, texts.values()))
    rows = [f"  {key:<{width}}  {text:>{digits}}\n" for key, text in texts.items()]
    return "".join([f"\n{title}\n", *rows])
