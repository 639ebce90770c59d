"""LeNet-5 held against what its paper states."""

from functools import partial

import pytest
import torch
from torch import nn

import lenet
from declared import Case, images
from lab import measure

CASES = {
    "LeNet5": Case(lenet.LeNet5, partial(images, channels=1, size=28)),
    "FullyConnected": Case(lenet.FullyConnected, partial(images, channels=1, size=28)),
    "LeNet5Original": Case(lenet.LeNet5Original, partial(images, channels=1, size=28),
                           lenet.map_loss),
}


def test_parameters():
    """Layer by layer as section II.B states; 60,000 in all."""
    model = lenet.LeNet5Original()
    free = {name: measure.parameters(layer) for name, layer in model.named_children()}
    free["c3"] -= 25 * int((~model.c3.mask).sum())
    assert free == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120,
                    "f6": 10164, "output": 0}
    assert sum(free.values()) == 60_000
    assert measure.parameters(lenet.LeNet5()) == 61_706


def test_c3():
    """A map of C3 changes with those maps of S2 that table I connects to it."""
    layer = lenet.SparseConv2d()
    x = torch.randn(1, 6, 14, 14)
    for i in range(6):
        without = x.clone()
        without[:, i] = 0
        changed = (layer(x) != layer(without)).any(3).any(2)[0]
        connected = [str(i) in inputs for inputs in lenet.C3_INPUTS]
        assert changed.tolist() == connected
    layer(x).square().sum().backward()
    assert torch.equal(layer.weight.grad.abs().sum((2, 3)) > 0, layer.mask[:, :, 0, 0])


def test_c3_table():
    """Table I: 6 triples and 6 quadruples of neighbours, 3 others, 1 of all."""
    sizes = [len(set(inputs)) for inputs in lenet.C3_INPUTS]
    assert sizes == 6 * [3] + 9 * [4] + [6]
    neighbours = [{str((i + k) % 6) for k in range(n)}
                  for n in (3, 4) for i in range(6)]
    found = [set(inputs) for inputs in lenet.C3_INPUTS]
    assert sorted(map(sorted, found[:12])) == sorted(map(sorted, neighbours))
    assert len(set(map(frozenset, found))) == 16
    seen = "".join(lenet.C3_INPUTS)
    assert [seen.count(str(i)) for i in range(6)] == 6 * [10]


def test_subsampling():
    layer = lenet.Subsampling(3)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 8, 8)
    sums = x.unfold(2, 2, 2).unfold(3, 2, 2).sum((-2, -1))
    torch.testing.assert_close(layer(x), layer.weight * sums + layer.bias)


def test_output():
    """Minus the squared distance to ten different bitmaps of pixels +1 and -1."""
    layer = lenet.RadialBasis()
    assert layer.bitmaps.shape == (10, 84)
    assert set(layer.bitmaps.unique().tolist()) == {-1.0, 1.0}
    assert len(layer.bitmaps.unique(dim=0)) == 10
    x = torch.randn(5, 84)
    torch.testing.assert_close(-layer(x), torch.cdist(x, layer.bitmaps).square())
    assert layer(layer.bitmaps).argmax(1).tolist() == list(range(10))


def test_loss():
    """Eq. 9, written out."""
    distances, labels = 5 * torch.rand(6, 10), torch.randint(10, (6,))
    expected = torch.stack([
        y[label] + torch.log(torch.exp(torch.tensor(-0.5)) + torch.exp(-y).sum())
        for y, label in zip(distances, labels)]).mean()
    torch.testing.assert_close(lenet.map_loss(-distances, labels, j=0.5), expected)


def test_scaled_tanh():
    """f(1) = 1 and f(-1) = -1, and its slope at 0 is 2/3 of 1.7159."""
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    y = lenet.scaled_tanh(x)
    torch.testing.assert_close(y, x, atol=1e-4, rtol=0)
    y.sum().backward()
    assert x.grad[1].item() == pytest.approx(1.7159 * 2 / 3)
