"""Whole runs of a module: killed and resumed, on two processes, made fresh again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

LAB = Path(__file__).resolve().parents[1] / "code" / "lab"
TOY = ["code/toy.py", "--device", "cpu"]
MODULE = '''
import os
import time
from dataclasses import dataclass

import torch
from torch import nn
from lab import cli, results, training


@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 5
    batch_size: int = 32
    lr: float = 0.05


# %% Two trainings
if __name__ == "__main__":
    args = cli.begin({"none": Settings()})
    inputs = torch.rand(160, 6)
    data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
    for name in ("first", "second"):
        model = training.place(nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2 * (name == "first")),
            nn.Linear(8, 1)), args)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

        def step(batch):
            loss = nn.functional.mse_loss(model(batch[0]), batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(float(os.environ.get("PAUSE", 0)))
            return {"loss": loss}

        history = training.fit(step, training.loader(data, args), args, name=name,
                               save={"model": model, "optimizer": optimizer})
        results.record(name + "_loss", history["loss"][-1])

# %% What this run measured
if __name__ == "__main__":
    results.save({"layers": 2})
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of code/lab with one module, code/toy.py, that trains twice."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(LAB, root / "code" / "lab",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (root / "code" / "toy.py").write_text(MODULE)
    return root


@pytest.fixture(scope="module")
def whole(project):
    """The folder of an uninterrupted run on one process."""
    assert finish(start(project, *TOY, "--out", "whole"))[0] == 0
    return project / "whole"


def start(project, *words, pause=0.0):
    environment = {**os.environ, "PAUSE": str(pause), "OMP_NUM_THREADS": "1"}
    environment.pop("LAB_ARGS", None)
    return subprocess.Popen([sys.executable, *words], cwd=project, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def stop_at(process, words, how):
    """Send a signal when stderr has a line with these words; the rest of stderr."""
    for line in process.stderr:
        if words in line:
            process.send_signal(how)
            break
    return finish(process)


def outcome(folder):
    """What two trainings ended with, but for the seconds."""
    files = [torch.load(folder / "checkpoints" / f"{name}.pt")
             for name in ("first", "second")]
    return [(file["states"], file["history"]["loss"]) for file in files]


def test_interrupted_and_killed_runs_continue_to_the_same_weights(project, whole):
    out = project / "out"
    again = [*TOY, "--out", "out", "--resume"]
    process = start(project, *again[:-1], pause=0.1)
    status, _, err = stop_at(process, "first epoch 2/5", signal.SIGINT)
    assert status == 130 and "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"interrupted; continue with: python {' '.join(again)}")
    process = start(project, *again, pause=0.1)
    status, _, err = stop_at(process, "second epoch 3/5", signal.SIGKILL)
    assert status == -signal.SIGKILL and not (out / "results").exists()
    status, _, err = finish(start(project, *again))
    assert status == 0 and "first epoch" not in err and "second epoch 3" not in err
    assert str(outcome(out)) == str(outcome(whole))
    for (states, _), (expected, _) in zip(outcome(out), outcome(whole)):
        for name, weight in expected["model"].items():
            assert torch.equal(states["model"][name], weight)
    interrupted, uninterrupted = (json.loads(
        (folder / "results" / "toy.json").read_text())["demo"]
        for folder in (out, whole))
    assert interrupted["values"] == uninterrupted["values"]
    assert interrupted["command"] == uninterrupted["command"]
    assert interrupted["seconds"] > 2, "the epochs before the interruptions count"


def test_two_processes_train_as_one(project, whole):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    status, out, err = finish(start(project, *torchrun, *TOY, "--out", "two"))
    assert status == 0, err
    assert out.count("wrote") == 1 and err.count("second epoch 5/5") == 1
    (states, losses), (expected, expected_losses) = (
        outcome(folder)[1] for folder in (project / "two", whole))  # without dropout
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for name, weight in expected["model"].items():
        assert torch.allclose(states["model"][name], weight, atol=1e-5)
    record = json.loads((project / "two" / "results" / "toy.json").read_text())
    assert record["demo"]["command"] == (
        "torchrun --nproc-per-node=2 code/toy.py --device cpu")


def test_lenet_on_two_processes_trains_as_on_one(tmp_path):
    """The same global batch, the same loss: there is no batch norm in it."""
    demo = ["code/lenet.py", "--device", "cpu", "--quick", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    losses = {}
    for out, launcher in [("one", []), ("two", torchrun)]:
        status, _, err = finish(start(LAB.parents[1], *launcher, *demo, tmp_path / out))
        assert status == 0, err
        losses[out] = [torch.load(file)["history"]["loss"][0] for file in sorted(
            (tmp_path / out / "checkpoints").glob("lenet-LeNet5-digits-?-lr*.pt"))]
    assert len(losses["one"]) == 1
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)


def test_refresh_runs_what_is_stale(project):
    def refresh(*flags):
        return finish(start(project, "code/lab/refresh.py", *flags))

    status, out, err = refresh()
    assert status == 0 and "running python code/toy.py" in out, err
    record = json.loads((project / "static" / "results" / "toy.json").read_text())
    assert record["facts"]["values"] == {"layers": 2}
    assert record["demo"]["command"] == "python code/toy.py"
    assert refresh("--check")[:2] == (0, "fresh: 1 of 1 demos\n")


def test_lab_costs_nothing_at_import():
    heavy = "ignite sklearn matplotlib torchvision scipy PIL tqdm".split()
    program = ("import sys, torch; before = set(sys.modules); from lab import cli, "
               "data, figures, measure, results, training; print(sorted("
               f"set({heavy}) & (set(sys.modules) - before)))")
    status, out, err = finish(start(LAB.parent, "-c", program))
    assert (status, out) == (0, "[]\n"), err
