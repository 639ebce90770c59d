"""Numbers that runs measure: results/MODULE.json, for the slides."""

import contextlib
import json
import math
import os
from pathlib import Path

from lab import UserError, parallel, runs, terminal

RECORDS = Path(__file__).resolve().parents[2] / "static" / "results"


def record(key, value):
    """Note a measured number, `test_accuracy` or `mnist.test_accuracy`.

    Or a text that says how it was measured, such as sacrebleu's signature.
    """
    runs.current().record(key, _plain(value))


def record_runs(name, histories):
    """Record the final metrics of trainings that differ only in their seed.

    histories: training.fit's. Of each metric KEY there are NAME_KEY, the mean, and its
    range, NAME_KEY_lowest and NAME_KEY_highest; NAME_seconds is the mean duration.
    """
    for key in histories[0]:
        if key != "seconds":
            record_range(f"{name}_{key}", [history[key][-1] for history in histories])
    seconds = sum(sum(history["seconds"]) for history in histories)
    record(f"{name}_seconds", seconds / len(histories))


def record_range(key, values):
    """Record the mean of values as KEY, and KEY_lowest and KEY_highest."""
    record(key, sum(values) / len(values))
    record(f"{key}_lowest", min(values))
    record(f"{key}_highest", max(values))


def save(facts):
    """Print what this run measured and write it to OUT/results/MODULE.json.

    facts: {key: number}, computed from the model alone. The module's settings are
    written, too. The entries of other runs in that file stay; of a run that was
    redrawn, so do its seconds, date and hardware. Raises UserError if the file is
    there but not a record.
    """
    facts = {key: _plain(value) for key, value in facts.items()}
    current = runs.current()
    measured = current.measured()
    print(f"\n{current.command}\n")
    samples = " and ".join(f"{n:,} {part}" for part, n in current.samples.items())
    if samples:
        print(f"  {samples} samples of {current.data}, seed {current.seed}")
    print(f"  {measured['seconds']} s on {measured['hardware']}, "
          f"{_many(measured['processes'], 'process', 'es')} of "
          f"{_many(measured['threads'], 'thread')}, "
          f"at most {measured['peak_memory_mib']} MiB of memory in each")
    for title, values in [("measured", current.values), ("facts", facts)]:
        print(_table(title, values), end="")
    if current.display:
        return
    path = current.out / "results" / f"{current.module}.json"
    entries = read(path)
    for name, values in [("facts", facts), ("settings", current.settings)]:
        entries[name] = {"hash": measured["hash"], "values": values}
    if current.choices:
        entries.setdefault("choices", {}).setdefault(current.name, {}).update(
            current.choices)
    kept = entries.get(current.name) if current.redrawn else None
    entries[current.name] = measured if not kept else kept | {
        key: measured[key] for key in ("hash", "sides", "values")}
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(entries, indent=2, ensure_ascii=False) + "\n", "utf-8",
            errors="replace")  # a file's name in the command may be no text
    print(f"\nwrote {terminal.shown(path)}")
    if current.trainings:
        with atomic(current.trainings) as temporary:
            temporary.write_bytes(parallel.dump())


def read(path):
    """The entries of a record, {} if there is none; UserError if it is not one."""
    try:
        entries = json.loads(path.read_text("utf-8"))
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise ValueError("an entry is no object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a record ({error}): delete it") from None
    return entries


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside `path` that replaces it if the block succeeds.

    Raises UserError if it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _plain(value):
    """A number as JSON has it: NaN and infinity, which no slide shows, are None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _many(n, thing, plural="s"):
    return f"{n} {thing}{plural if n > 1 else ''}"


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
