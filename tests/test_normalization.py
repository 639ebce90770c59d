"""Every building block of code/normalization.py, held against torch's own."""
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import normalization
from declared import Case, images
from identical import assert_same_gradients, leaf

CASES = {
    "convolutions": Case(partial(normalization.convolutions, depth=3, width=8),
                         partial(images, channels=1, size=8)),
    "perceptron": Case(partial(normalization.perceptron, dropout=0.5),
                       partial(images, channels=1, size=8)),
}


def test_dropout_drops_a_share_and_keeps_the_mean():
    y = normalization.dropout(torch.ones(1000, 100), p=0.3)
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / 0.7]))
    assert y.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_does_nothing_at_test_time():
    x = torch.randn(10)
    assert normalization.dropout(x, training=False) is x


def test_batch_norm():
    for training in (True, False):
        x, weight, bias = leaf(4, 3, 5, 6, scale=2), leaf(3), leaf(3)
        ours, torchs = [(torch.full((3,), 0.3), torch.full((3,), 2.0)) for _ in "ab"]
        assert_same_gradients(
            normalization.batch_norm(x, *ours, weight, bias, training),
            F.batch_norm(x, *torchs, weight, bias, training), x, weight, bias)
        for a, b in zip(ours, torchs):  # the running statistics
            torch.testing.assert_close(a, b)
            assert not a.requires_grad


def test_dropout_before_batch_norm_shifts_the_variance():
    """Li et al. 2019: 1 / (1 - p) times as large in training as in testing."""
    x = torch.randn(100_000)
    assert normalization.dropout(x, p=0.75).var().item() == pytest.approx(4, rel=0.05)


def test_some_labels_of_few_digits_are_random():
    args = next(iter(normalization.SETTINGS.values()))
    args = replace(args, data="digits", few=300)
    clean, others = normalization.digits_to_overfit(0.0, args)
    noisy, same = normalization.digits_to_overfit(0.2, args)
    assert (len(clean), len(others)) == (300, 1497)
    changed = (clean.tensors[1] != noisy.tensors[1]).float().mean().item()
    assert changed == pytest.approx(0.2 * 0.9, abs=0.06)
    assert torch.equal(others.tensors[1], same.tensors[1])


def test_layer_norm():
    x = leaf(4, 6, 5, 5, scale=2)
    assert_same_gradients(normalization.layer_norm(x), F.layer_norm(x, x.shape[1:]), x)


def test_instance_norm():
    x = leaf(4, 6, 5, 5, scale=2)
    assert_same_gradients(normalization.instance_norm(x), F.instance_norm(x), x)


def test_group_norm():
    for groups in (1, 2, 3, 6):
        x = leaf(4, 6, 5, 5, scale=2)
        assert_same_gradients(
            normalization.group_norm(x, groups), F.group_norm(x, groups), x)


def test_normalise_gives_mean_0_and_variance_1_over_its_axes():
    y = normalization.normalize(5 + 3 * torch.randn(4, 6, 5, 5), (0, 2, 3))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(6),
                               atol=1e-4, rtol=0)


def test_normalised_activations_keep_their_size():
    images = torch.randn(16, 1, 8, 8)
    for gain in (0.5, 2):
        plain, normalised = [normalization.activation_sizes(
            normalization.convolutions(20, norm, gain=gain), images)
            for norm in (torch.nn.Identity, torch.nn.BatchNorm2d)]
        assert not 1e-3 < plain[-1] / plain[0] < 1e3
        assert 0.5 < normalised[-1] / normalised[0] < 2


def test_batch_norm_of_half_a_batch_differs():
    """As on two processes: each half is normalised by its own mean and variance."""
    x, ones, zeros = torch.randn(32, 3, 4, 4), torch.ones(3), torch.zeros(3)

    def normalised(part):
        return normalization.batch_norm(
            part, zeros.clone(), ones.clone(), ones, zeros, True)

    whole, halves = normalised(x), torch.cat([normalised(x[:16]), normalised(x[16:])])
    assert (whole - halves).abs().max() > 0.01


def test_group_norm_of_half_a_batch_is_the_same():
    x = torch.randn(32, 6, 4, 4)
    halves = [normalization.group_norm(part, 2) for part in (x[:16], x[16:])]
    assert torch.equal(normalization.group_norm(x, 2), torch.cat(halves))
