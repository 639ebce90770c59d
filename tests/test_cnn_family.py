"""The contest gives each network the same time and trains it as the others."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import cnn_family
from lab import measure


@pytest.fixture
def args(monkeypatch):
    """Arguments for a data set of 64 + 32 random pictures, 8 of them a step."""
    sets = [TensorDataset(torch.randn(n, 3, 8, 8), torch.arange(n) % 10)
            for n in (64, 32)]
    monkeypatch.setattr("lab.data.load", lambda args, size: sets)
    return SimpleNamespace(budget=300, batch_size=8, size=8, seed=0, quick=False,
                           augment=True, weight_decay=0, lr=None, epochs=None,
                           resume=False, device=torch.device("cpu"))


def tiny(in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 10))


def test_as_many_epochs_as_fit(args, monkeypatch):
    """A step of 0.5 s makes an epoch of 8 steps 4 s long: 75 of them in 300 s."""
    clock = iter(range(100))
    monkeypatch.setattr(cnn_family.time, "perf_counter", lambda: next(clock) / 2)
    contestant = cnn_family.Contestant("tiny", tiny, 0.1)
    assert cnn_family.epochs_within(300, contestant, args) == 75
    assert cnn_family.epochs_within(0.1, contestant, args) == 1


def test_result(args, monkeypatch):
    seen = []

    def adam(parameters):
        seen.append(torch.optim.Adam(parameters, lr=9.0))
        return seen[-1]

    monkeypatch.setitem(cnn_family.CONTESTANTS, "tiny", cnn_family.Contestant(
        "tiny", tiny, 0.01, adam))
    monkeypatch.setattr(cnn_family, "epochs_within", lambda *_: 3)
    before = copy.copy(args)
    accuracy, seconds, epochs = cnn_family.result.__wrapped__("tiny", args)
    assert 0 <= accuracy <= 1 and seconds > 0 and epochs == 3
    assert len(seen) == 1 and seen[0].param_groups[0]["lr"] < 0.01
    assert args == before, "the arguments are shared by all contestants"


@pytest.mark.parametrize("name", cnn_family.CONTESTANTS)
def test_contestants_take_pictures_of_one_and_three_channels(name):
    build = cnn_family.CONTESTANTS[name].build
    for channels in (1, 3):
        logits = build(channels).eval()(torch.randn(2, channels, 32, 32))
        assert logits.shape == (2, 10)
    assert measure.parameters(build(3)) < 1e6
