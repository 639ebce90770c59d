"""lab.parallel: trainings side by side give what they give one after the other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lab import parallel, runs

ROOT = Path(__file__).resolve().parents[1]
TOY = '''
import os
import sys
import time
from dataclasses import dataclass

import torch
from torch import nn
from lab import UserError, cli, parallel, results, training


@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 4
    batch_size: int = 32
    lr: float = 0.05
    runs: int = 5
    pause: float = cli.flag(0.0, "seconds of a step")
    fault: str = cli.flag("", "what goes wrong")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 1)

    def forward(self, x):
        return self.linear(x)


@parallel.memoize
def first(args, seed):
    return trained(args, seed, bias=0.5)


@parallel.memoize
def trained(args, seed, bias=0.0):
    os.write(2, f"pid {os.getpid()}\\n".encode())
    if args.fault and seed == 2:
        if args.fault == "killed":
            os.kill(os.getpid(), 9)
        raise UserError("the data are gone") if args.fault == "user" else ValueError
    torch.manual_seed(seed)
    inputs = torch.rand(160, 6)
    data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True) + bias)
    model = training.place(Network(), args)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    def step(batch):
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(args.pause)
        return {"loss": loss, "threads": torch.get_num_threads()}

    history = training.fit(step, training.loader(data, args), args, seed=seed,
                           name=f"toy-{bias}-{seed}",
                           save={"model": model, "optimizer": optimizer})
    return training.Trained(model, history)


@parallel.memoize
def after(args, seed):
    """Of what was made before, and of what is made on the way."""
    on_the_way = trained(args, seed, bias=0.25)
    return first(args, seed).model.linear.weight + on_the_way.model.linear.weight


# %% Trainings
if __name__ == "__main__":
    args = cli.begin({"none": Settings()})
    parallel.precompute([(function, args, seed) for seed in args.seeds
                         for function in (first, trained, trained)])
    parallel.precompute((after, args, seed) for seed in args.seeds)

# %% What they gave
if __name__ == "__main__":
    for seed in args.seeds:
        model, history = trained(args, seed=seed)
        assert isinstance(model, Network)
        results.record(f"loss{seed}", history["loss"][-1])
        results.record(f"threads{seed}", history["threads"][-1])
        results.record(f"weight{seed}", model.linear.weight[0, 0])
        results.record(f"after{seed}", after(args, seed)[0, 0])
        results.record(f"way{seed}", trained(args, seed, 0.25).history["loss"][-1])
    results.record("random", torch.rand(1))
    results.save({})
'''

two_cores = pytest.mark.skipif(
    runs.cores() < 2 or sys.platform != "linux",
    reason="workers are told apart from one core by Linux's taskset and /proc")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("parallel")
    (root / "code").mkdir()
    (root / "code/lab").symlink_to(ROOT / "code/lab")
    (root / "code/toy.py").write_text(TOY)
    return root


def start(project, *flags, cores=None):
    """The toy's process, in a separate process group, as in a terminal."""
    pin = [] if cores is None else ["taskset", "-c", cores]
    return subprocess.Popen(
        [*pin, sys.executable, "code/toy.py", *map(str, flags)], cwd=project, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish(process):
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def measured(project, out):
    return json.loads((project / out / "results/toy.json").read_text())["demo"]


def pids(err):
    """The processes that trained, once for each training."""
    return [line.split()[1] for line in err.splitlines() if line.startswith("pid")]


@two_cores
def test_side_by_side_as_one_after_the_other(project):
    """The same weights; each training once; in two processes of one thread each."""
    status, out, err = finish(start(project, "--out", "two", "--pause", 0.02))
    assert status == 0, err
    assert len(pids(err)) == 15, "some training was repeated"
    assert len(set(pids(err))) == 2 * runs.cores(), "not all was trained by workers"
    assert f"{runs.cores()} processes of 1 thread" in out
    found = measured(project, "two")
    assert found["processes"] == runs.cores() and found["threads"] == 1
    core = str(min(os.sched_getaffinity(0)))
    status, _, err = finish(start(project, "--out", "one", "--pause", 0.02, cores=core))
    assert status == 0 and len(set(pids(err))) == 1, err
    assert measured(project, "one")["values"] == found["values"]
    assert measured(project, "one")["processes"] == 1
    assert {found["values"][f"threads{seed}"] for seed in range(5)} == {1}


@pytest.mark.parametrize("flags", [["--quick"], ["--threads", 0]])
def test_one_process_where_more_do_not_pay(project, flags):
    status, _, err = finish(start(project, "--out", "alone", *flags))
    assert status == 0 and len(set(pids(err))) == 1, err


@two_cores
@pytest.mark.parametrize("how, group", [
    ("INT", True), ("INT", False), ("TERM", False), ("KILL", False)])
def test_no_process_outlives_the_run(project, how, group):
    """Ctrl-C, which all get, and signals to the first process alone."""
    process = start(project, "--out", f"ended-{how}-{group}", "--pause", 0.1)
    workers = set()
    for line in process.stderr:
        if line.startswith("pid"):
            workers.add(int(line.split()[1]))
        if len(workers) == 2 and "epoch 1/4" in line:
            break
    number = getattr(signal, f"SIG{how}")
    (os.killpg if group else os.kill)(process.pid, number)
    status, _, err = finish(process)
    assert status == (130 if how == "INT" else -number)
    assert "Traceback" not in err
    if how == "INT":
        assert "interrupted; continue with: python code/toy.py" in err
        assert err.rstrip().endswith("--resume")
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker goes on"
        time.sleep(0.05)


@two_cores
def test_an_interrupted_run_continues_to_the_same_weights(project):
    process = start(project, "--out", "again", "--pause", 0.02)
    for line in process.stderr:
        if "toy-0.0-0 epoch 2/4" in line:
            process.send_signal(signal.SIGINT)
            break
    finish(process)
    status, _, err = finish(start(project, "--out", "again", "--resume", "--pause",
                                  0.02))
    assert status == 0 and "toy-0.0-0 epoch 1/4" not in err, err
    finish(start(project, "--out", "whole"))
    assert measured(project, "again")["values"] == measured(project, "whole")["values"]


@two_cores
@pytest.mark.parametrize("fault, words", [
    ("user", "the data are gone"), ("killed", "a process that trained has ended"),
    ("defect", "ValueError")])
def test_what_goes_wrong_in_a_worker_ends_the_run(project, fault, words):
    status, out, err = finish(start(project, "--out", fault, "--fault", fault))
    assert status == 1 and words in err and "wrote" not in out
    assert ("Traceback" in err) == (fault == "defect")


def test_memoize():
    """One result for the same call, however its arguments are given."""
    calls = []

    def function(a, b=2, *, c=3):
        calls.append((a, b))
        return object()

    memoized = parallel.memoize(function)
    assert memoized(1) is memoized(1, 2) is memoized(b=2, a=1) is memoized(1, c=3)
    assert memoized(1) is not memoized(2) and calls == [(1, 2), (2, 2)]
    assert memoized(1) is not memoized(1, c=4)
    calls.pop()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    parallel.memoize(lambda: torch.rand(5))()
    assert torch.rand(1) == expected, "a call changes what comes after it"
    again = parallel.memoize(function)
    assert again(1) is not None and calls == [(1, 2), (2, 2), (1, 2)]
