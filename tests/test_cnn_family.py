"""The contest gives each network the same time and trains it as the others."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import cnn_family
from lab import measure


@pytest.fixture
def args(monkeypatch):
    """Settings for a data set of 64 + 32 random images, 8 of them a step."""
    sets = [TensorDataset(torch.randn(n, 3, 8, 8), torch.arange(n) % 10)
            for n in (64, 32)]
    monkeypatch.setattr("lab.data.load", lambda args, size: sets)
    return replace(cnn_family.SETTINGS["cifar10"], batch_size=8,
                   device=torch.device("cpu"))


def tiny(in_channels, scale):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 10))


def test_as_many_epochs_as_fit(args, monkeypatch):
    """Trials of 1 epoch of 4 s, then of 4 for 15 s, make 75 in 300 s; at least one."""
    asked = []

    def trained(contestant, args, epochs):
        asked.append(epochs)
        return tiny(3, scale=1), {"seconds": [4.0] * epochs}

    monkeypatch.setattr(cnn_family, "trained", trained)
    _, seconds, epochs = cnn_family.result.__wrapped__("resnet", args)
    assert asked == [1, 4, 75] and (seconds, epochs) == (300, 75)
    args = replace(args, budget=1)
    assert cnn_family.result.__wrapped__("resnet", args)[2] == 1


def test_a_contestant_is_trained_in_its_own_way(args, monkeypatch):
    seen = []

    def adam(parameters):
        seen.append(torch.optim.Adam(parameters, lr=0.01))
        return seen[-1]

    monkeypatch.setitem(cnn_family.CONTESTANTS, "tiny",
                        cnn_family.Contestant("Tiny", tiny, adam))
    model, history = cnn_family.trained("tiny", args, epochs=3)
    assert len(history["seconds"]) == 3 and "accuracy" not in history
    assert len(seen) == 1 and seen[0].param_groups[0]["lr"] < 0.01


@pytest.mark.parametrize("name", cnn_family.CONTESTANTS)
def test_contestants_take_images_of_one_and_three_channels(name):
    build = cnn_family.CONTESTANTS[name].build
    for channels in (1, 3):
        logits = build(channels, scale=1).eval()(torch.randn(2, channels, 32, 32))
        assert logits.shape == (2, 10)
    assert measure.parameters(build(3, scale=1)) < 1e6
