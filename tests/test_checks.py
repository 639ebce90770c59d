"""lab.checks: correct work passes, each usual mistake gets the hint that names it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab import checks

ROOT = Path(__file__).resolve().parents[1]
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def fails(check, *arguments, **options):
    with pytest.raises(checks.Hint) as raised:
        check(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def grown():
    return X.clone().requires_grad_()


class Network(nn.Module):
    def __init__(self, spare=False, always_drops=False, own_norm=False):
        super().__init__()
        self.hidden, self.classifier = nn.Linear(6, 32), nn.Linear(32, 3)
        self.spare = nn.Linear(2, 2) if spare else None
        self.always_drops, self.own_norm = always_drops, own_norm

    def forward(self, x):
        x = self.hidden(x).relu()
        x = F.dropout(x, training=self.always_drops)
        if self.own_norm:
            x = (x - x.mean(0)) / (x.std(0, correction=0) + 1e-5)
        return self.classifier(x)


def test_parameters():
    checks.parameters(nn.Linear(3, 2), 8)
    said = fails(checks.parameters, Network(), 6)
    assert "Network has 323 trainable parameters instead of 6" in said
    assert "hidden 224, classifier 99" in said


def test_shape():
    checks.shape(torch.t, X, expected=(6, 4))
    assert "returns shape (4, 6) instead of (6, 4) for tensor[4, 6]" in fails(
        checks.shape, lambda x: x, X, expected=(6, 4))


@pytest.mark.parametrize("function, hint", [
    (lambda x: None, "returns None: is its `return` missing"),
    (lambda x: x.sum().item(), "returns a float instead of a torch.Tensor"),
    (lambda x: x.t(), "has shape (6, 4) instead of (4, 6)"),
    (lambda x: (2 * x).double(), "is torch.float64 instead of torch.float32"),
    (lambda x: 2 * x / 0 * 0, "contains NaN"),
    (lambda x: 2 * x + (x == x.max()), "is wrong by up to 1: at ["),
    (lambda x: x.mul_(2), "changes its input"),
    (lambda x: x @ x, "print the shapes"),
    (lambda x: x @ x.t().double(), "convert one of them"),
    (lambda x: x.numpy().undefined, "AttributeError"),
    (lambda x: sys.exit(), "SystemExit"),
])
def test_equal(function, hint):
    checks.equal(lambda x: x + x, lambda x: 2 * x, X)
    assert hint in fails(checks.equal, function, lambda x: 2 * x, X)


def test_equal_of_other_things():
    checks.equal(len, lambda x: 3, [1, 2, 3])
    assert "returns 3 instead of 2 for [1, 2, 3]" in fails(
        checks.equal, len, lambda x: 2, [1, 2, 3])
    assert "returns True instead of 1" in fails(
        checks.equal, lambda x: True, lambda x: 1, 0)


@pytest.mark.parametrize("function, hint", [
    (lambda x: (x ** 2).detach(), "no gradient reaches"),
    (lambda x: x * x.detach(), "the gradient of your function for input 1 is wrong"),
    (lambda x: torch.tensor(x.numpy() ** 2), "numpy has no gradients"),
])
def test_equal_gradients(function, hint):
    checks.equal(lambda x: x * x, torch.square, grown())
    assert hint in fails(checks.equal, function, torch.square, grown())


def test_a_tensor_of_ones_own_is_none():
    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *arguments, **options):
            return True

    assert "returns a Liar" in fails(
        checks.equal, lambda x: x.as_subclass(Liar), lambda x: x, X)


def test_gradient():
    checks.gradient(lambda x, y: (x @ y.t()).tanh(), X, X)
    assert "is not that of its output" in fails(
        checks.gradient, lambda x: x * x.detach(), X)
    assert "no gradient reaches" in fails(checks.gradient, lambda x: x.detach(), X)


def test_overfits():
    labels = torch.tensor([0, 1, 2, 0])
    checks.overfits(Network(), X, labels)
    assert "spare.weight of Network gets no gradient" in fails(
        checks.overfits, Network(spare=True), X, labels)
    assert "has a loss of" in fails(
        checks.overfits, Network(), torch.ones(4, 6), labels, steps=20)
    assert "Flatten has no parameters" in fails(
        checks.overfits, nn.Flatten(), X, labels)
    network = Network()
    before = [parameter.clone() for parameter in network.parameters()]
    checks.overfits(network, X, labels)
    assert all(map(torch.equal, before, network.parameters()))


def test_eval_mode():
    network = nn.Sequential(Network(), nn.BatchNorm1d(3), nn.Dropout())
    checks.eval_mode(network, X)
    assert network.training
    assert "two outputs for one input" in fails(
        checks.eval_mode, Network(always_drops=True), X)
    assert "depends on the other samples" in fails(
        checks.eval_mode, Network(own_norm=True), X)

    class Counts(nn.BatchNorm1d):
        def forward(self, x):
            return F.batch_norm(x, self.running_mean, self.running_var, training=True)

    assert "changes running_mean" in fails(checks.eval_mode, Counts(6), X)


def test_reproducible():
    checks.reproducible(lambda: torch.rand(3))
    generator = torch.Generator()
    assert "something else each time" in fails(
        checks.reproducible, lambda: torch.rand(3, generator=generator))
    assert "the same for every seed" in fails(
        checks.reproducible, lambda: torch.zeros(3))


def test_accuracy(monkeypatch):
    class Right(nn.Module):
        def forward(self, x):
            return x

    inputs, labels = torch.eye(4).repeat(100, 1), torch.arange(4).repeat(100)
    assert checks.accuracy(Right, inputs, labels, at_least=0.9, seconds=9) == 1
    assert "has a test accuracy of 25.0%; 90% are required" in fails(
        checks.accuracy, Right, inputs, labels * 0, 0.9, 9)
    assert "returns a Tensor instead of a model" in fails(
        checks.accuracy, lambda: X, inputs, labels, 0.9, 9)
    clock = iter([0, 100])
    monkeypatch.setattr(checks, "process_time", lambda: next(clock))
    assert "took 100 s; the budget is 9 s" in fails(
        checks.accuracy, Right, inputs, labels, 0.9, 9)


def test_without():
    own = checks.without(F.relu, "relu")
    assert "relu uses torch's own relu" in fails(checks.call, own, X)
    checks.equal(checks.without(lambda x: x.clamp(min=0), "relu"), F.relu, X)


def test_the_line_of_the_student_is_shown():
    def broken(x):
        return x.reshape(5)

    said = fails(checks.call, broken, X)
    assert "is invalid for input of size" in said and "print the shapes" in said
    assert said.endswith(": return x.reshape(5)")


SCRIPT = '''
# %% nbgrader={"grade_id": "setup", "locked": true}
import torch

from lab import checks

checks.begin(__name__)
# %% [markdown]
# words and no code (
# %% nbgrader={"grade_id": "twice", "solution": true}
def twice(x):
    BODY
# %% nbgrader={"grade_id": "twice-checks", "points": 2}
checks.equal(twice, lambda x: 2 * x, torch.ones(2))
# %% nbgrader={"grade_id": "also-checks", "points": 1}
built = torch.zeros(2)
'''


@pytest.mark.parametrize("body, status, said", [
    ("return 2 * x", 0, "✓ twice\n✓ also\n3 of 3 points"),
    ("raise NotImplementedError()", 1,
     "✗ twice: twice is not written yet.\n✓ also\n1 of 3 points"),
    ("return x @ x @ x", 1,
     "✗ twice: twice fails with RuntimeError: both arguments to matmul need to be at "
     "least 1D, but they are 0D and 1D, line 12: return x @ x @ x"),
])
def test_a_script_goes_on_after_a_cell_that_fails(tmp_path, body, status, said):
    script = tmp_path / "work.py"
    script.write_text(SCRIPT.replace("BODY", body), "utf-8")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, encoding="utf-8",
        env={"PYTHONPATH": str(ROOT / "code"), "PYTHONIOENCODING": "utf-8"})
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.startswith(said)
