"""Trainings side by side: a process for each core, one thread in each.

The networks of the demos are so small that a second thread gains little, and loses
everything while another program keeps a core busy.
"""

import contextlib
import dataclasses
import functools
import inspect
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import numpy
import torch

from lab import UserError, runs

_kept = {}  # {name of a memoized function: {its arguments: what it returned}}


def memoize(function):
    """Let a function return the same object for the same arguments, once computed.

    As functools.cache does; besides, precompute() can compute it ahead, a call leaves
    the random numbers of this process as they were, wherever it is computed, and
    options may be given by position or by name. A new definition computes again.
    """
    name = _name(function)
    signature = inspect.signature(function)
    kept = _kept[name] = {}

    @functools.wraps(function)
    def memoized(*arguments, **options):
        key = key_of(*arguments, **options)
        if key not in kept:
            if runs.has_begun() and runs.current().redrawn:
                print(f"training {_shown(function, key)}: it was not kept", flush=True)
            with _same_random_numbers():
                kept[key] = function(*arguments, **options)
        return kept[key]

    def key_of(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        return bound.args + tuple(bound.kwargs.items())

    memoized.key_of, memoized.kept = key_of, kept
    return memoized


def precompute(calls):
    """Make calls of memoized functions side by side; later ones find the results.

    calls: (function, *arguments) each, the longest first; each must seed itself.
    Does nothing where a process for each core does not pay: on a GPU, with --quick,
    where each process may use all cores, and in a notebook or on a slide, where each
    training draws its curve when its cell runs. Raises UserError if a process ends.
    """
    current = runs.current()
    keyed = {(function, function.key_of(*arguments)): (function, arguments)
             for function, *arguments in calls}   # each once
    calls = [call for (function, key), call in keyed.items()
             if key not in function.kept]
    if current.processes == 1 or len(calls) < 2:
        return
    state = pickle.dumps((current, _kept))
    executor = ProcessPoolExecutor(
        min(current.processes, len(calls)), multiprocessing.get_context("spawn"),
        _start, (state, torch.get_num_threads()))
    reports = {}
    try:
        futures = _submit(executor, calls)
        for future in _progress(as_completed(futures), len(calls)):
            made, process, report = pickle.loads(future.result())
            _keep(made)
            reports[process] = report
    except BrokenProcessPool:
        raise UserError("a process that trained has ended, perhaps for lack of memory: "
                        "free some, and continue with --resume") from None
    finally:
        for worker in multiprocessing.active_children():
            worker.terminate()
        executor.shutdown()
        current.absorb(reports)


def dump():
    """What all memoized functions have returned, for recall(), as bytes."""
    return runs.current().training_hash.encode() + pickle.dumps(_kept)


def recall():
    """Take what was trained by a run of the same code from the current run's file."""
    current = runs.current()
    file, digest = current.trainings, current.training_hash.encode()
    content = file.read_bytes() if file.exists() else b""
    if content.startswith(digest):
        _keep(pickle.loads(content[len(digest):]))
        current.redrawn = True
    else:
        print("training all: no trainings of this code were kept", flush=True)


def use_threads(threads):
    """Compute on `threads` threads in this process; 0 leaves that to PyTorch."""
    if threads:
        torch.set_num_threads(threads)
    # glibc gives freed memory back, and each step then pays for page faults; after
    # one large block was freed it keeps what smaller ones leave
    torch.empty(2 ** 23 - 64)


def is_worker():
    """Whether precompute() started this process."""
    return multiprocessing.parent_process() is not None


@contextlib.contextmanager
def _same_random_numbers():
    states = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])


def _name(function):
    module = "__main__" if function.__module__ == "__mp_main__" else function.__module__
    return f"{module}.{function.__qualname__}"


def _shown(function, key):
    """A call as one reads it, without the settings."""
    shown = [getattr(value, "__name__", str(value)) for value in key
             if not dataclasses.is_dataclass(value) or isinstance(value, type)]
    return f"{function.__name__}({', '.join(shown)})"


def _keep(made):
    """Keep {name of a memoized function: {its arguments: what it returned}}."""
    for name, results in made.items():
        _kept.setdefault(name, {}).update(results)


def _submit(executor, calls):
    """The calls' futures. The workers ignore Ctrl-C, as this process ends them."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # they start with it
    try:
        return [executor.submit(_call, *call) for call in calls]
    finally:
        signal.signal(signal.SIGINT, handler)


def _start(state, threads):
    """In a new worker: the run and the results of the process that started it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(threads)
    current, kept = pickle.loads(state)
    runs.use(current)
    _keep(kept)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(function, arguments):
    """In a worker: all that a call has made, by which process, and its run's report."""
    before = {name: set(kept) for name, kept in _kept.items()}
    function(*arguments)
    made = {name: {key: kept[key] for key in kept.keys() - before.get(name, set())}
            for name, kept in _kept.items()}
    # bytes, as PyTorch would pass tensors by files that end with this process
    return pickle.dumps((made, os.getpid(), runs.current().report()))


def _progress(done, total):
    from tqdm import tqdm
    return tqdm(done, "trainings", total, leave=False,
                disable=not sys.stderr.isatty())
