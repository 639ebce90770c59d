"""Every building block of code/layers.py, held against torch's own."""
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F

import layers
from declared import Case, images

CASES = {
    "convolutions": Case(partial(layers.convolutions, depth=3, width=8),
                         partial(images, channels=1, size=8)),
    "perceptron": Case(partial(layers.perceptron, dropout=0.5),
                       partial(images, channels=1, size=8)),
}


def assert_same(ours, reference, *inputs):
    """Equal values, and equal gradients with respect to every input."""
    torch.testing.assert_close(ours, reference)
    upstream = torch.randn_like(reference)
    for a, b in zip(torch.autograd.grad(ours, inputs, upstream),
                    torch.autograd.grad(reference, inputs, upstream)):
        torch.testing.assert_close(a, b)


def leaf(*shape, scale=1.0):
    return (scale * torch.randn(*shape)).requires_grad_()


def test_linear():
    x, weight, bias = leaf(4, 7), leaf(5, 7), leaf(5)
    assert_same(layers.linear(x, weight, bias), F.linear(x, weight, bias),
                x, weight, bias)


def test_conv2d():
    for kernel, stride, padding in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        x, weight, bias = leaf(2, 3, 9, 8), leaf(4, 3, kernel, kernel), leaf(4)
        ours = layers.conv2d(x, weight, bias, stride, padding)
        assert_same(ours, F.conv2d(x, weight, bias, stride, padding),
                    x, weight, bias)
        assert ours.shape[-2:] == tuple(
            layers.output_size(n, kernel, stride, padding) for n in (9, 8))


def test_conv2d_without_bias():
    x, weight = leaf(2, 3, 9, 8), leaf(4, 3, 3, 3)
    assert_same(layers.conv2d(x, weight), F.conv2d(x, weight), x, weight)


def test_max_pool2d():
    for kernel, stride, padding in [(2, None, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1)]:
        x = leaf(2, 3, 9, 8)
        assert_same(layers.max_pool2d(x, kernel, stride, padding),
                    F.max_pool2d(x, kernel, stride, padding), x)


@pytest.mark.parametrize("chain, size", [
    ([], 1), ([(3, 1)], 3), ([(3, 1)] * 3, 7), ([(5, 1), (2, 2), (5, 1)], 14),
    ([(3, 2), (3, 2), (3, 1)], 15)])
def test_receptive_field_is_where_the_gradient_reaches(chain, size):
    x = torch.ones(1, 1, 64, 64, requires_grad=True)
    y = x
    for kernel, stride in chain:
        y = layers.conv2d(y, torch.ones(1, 1, kernel, kernel), stride=stride)
    gradient, = torch.autograd.grad(y[0, 0, 2, 2], x)
    reached = (gradient[0, 0] != 0).any(dim=0).sum().item()
    assert layers.receptive_field(chain) == size == reached


@pytest.mark.parametrize("name", ["sigmoid", "relu"])
def test_activation_and_its_gradient(name):
    x = leaf(100, scale=3)
    y = getattr(layers, name)(x)
    torch.testing.assert_close(y, getattr(torch, name)(x))
    gradient, = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(getattr(layers, f"{name}_gradient")(x), gradient)


def test_softmax():
    for scale in (3, 1000):  # e^1000 overflows
        logits = leaf(4, 10, scale=scale)
        assert_same(layers.softmax(logits), F.softmax(logits, dim=-1), logits)


@pytest.mark.parametrize("offset", [-1e4, 0, 1e4])
def test_cross_entropy(offset):
    logits, target = leaf(4, 10, scale=3), torch.tensor([3, 0, 9, 9])
    assert_same(layers.cross_entropy(logits + offset, target),
                F.cross_entropy(logits + offset, target), logits)


def test_cross_entropy_of_a_hopeless_answer_is_finite():
    logits = torch.tensor([[0.0, 1000.0]], requires_grad=True)
    loss = layers.cross_entropy(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 1000
    assert logits.grad.tolist() == [[-1, 1]]


def test_dropout_drops_a_share_and_keeps_the_mean():
    y = layers.dropout(torch.ones(1000, 100), p=0.3)
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / 0.7]))
    assert y.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_does_nothing_at_test_time():
    x = torch.randn(10)
    assert layers.dropout(x, training=False) is x


def test_batch_norm():
    for training in (True, False):
        x, weight, bias = leaf(4, 3, 5, 6, scale=2), leaf(3), leaf(3)
        ours, torchs = [(torch.full((3,), 0.3), torch.full((3,), 2.0)) for _ in "ab"]
        assert_same(layers.batch_norm(x, *ours, weight, bias, training),
                    F.batch_norm(x, *torchs, weight, bias, training),
                    x, weight, bias)
        for a, b in zip(ours, torchs):  # the running statistics
            torch.testing.assert_close(a, b)
            assert not a.requires_grad


def test_layer_norm():
    x = leaf(4, 6, 5, 5, scale=2)
    assert_same(layers.layer_norm(x), F.layer_norm(x, x.shape[1:]), x)


def test_instance_norm():
    x = leaf(4, 6, 5, 5, scale=2)
    assert_same(layers.instance_norm(x), F.instance_norm(x), x)


def test_group_norm():
    for groups in (1, 2, 3, 6):
        x = leaf(4, 6, 5, 5, scale=2)
        assert_same(layers.group_norm(x, groups), F.group_norm(x, groups), x)


def test_normalise_gives_mean_0_and_variance_1_over_its_axes():
    y = layers.normalize(5 + 3 * torch.randn(4, 6, 5, 5), (0, 2, 3))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(6),
                               atol=1e-4, rtol=0)


def test_facts_count_what_a_convolution_saves():
    facts = layers.facts()
    assert facts["conv_parameters"] == 6 * (5 * 5 + 1)
    assert facts["full_parameters"] == 4704 * (784 + 1)
    assert facts["conv_multiply_adds"] == 6 * 28 * 28 * 5 * 5
    assert facts["full_multiply_adds"] == 4704 * 784
    assert facts["field_of_ten"] == 1 + 10 * 2


def test_gradients_vanish_through_sigmoids_and_not_through_relus():
    sigmoid, relu = [layers.gradient_sizes(f, 2 ** 0.5, seed=0)
                     for f in (layers.sigmoid, layers.relu)]
    assert sigmoid[0] < 1e-6 * sigmoid[-1]
    assert relu[0] > 1e-2 * relu[-1]


def test_normalised_activations_keep_their_size():
    images = torch.randn(16, 1, 8, 8)
    for gain in (0.5, 2):
        plain, normalised = [layers.activation_sizes(
            layers.convolutions(20, norm, gain=gain), images)
            for norm in (torch.nn.Identity, torch.nn.BatchNorm2d)]
        assert not 1e-3 < plain[-1] / plain[0] < 1e3
        assert 0.5 < normalised[-1] / normalised[0] < 2


def test_batch_norm_of_half_a_batch_differs():
    """As on two processes: each half is normalised by its own mean and variance."""
    x, ones, zeros = torch.randn(32, 3, 4, 4), torch.ones(3), torch.zeros(3)

    def normalised(part):
        return layers.batch_norm(part, zeros.clone(), ones.clone(), ones, zeros, True)

    whole, halves = normalised(x), torch.cat([normalised(x[:16]), normalised(x[16:])])
    assert (whole - halves).abs().max() > 0.01


def test_group_norm_of_half_a_batch_is_the_same():
    x = torch.randn(32, 6, 4, 4)
    halves = [layers.group_norm(part, 2) for part in (x[:16], x[16:])]
    assert torch.equal(layers.group_norm(x, 2), torch.cat(halves))
