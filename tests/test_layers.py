"""Every building block of code/layers.py, held against torch's own."""
from itertools import product

import pytest
import torch
import torch.nn.functional as F

import layers
from identical import assert_same_gradients, leaf


def test_linear():
    x, weight, bias = leaf(4, 7), leaf(5, 7), leaf(5)
    assert_same_gradients(layers.linear(x, weight, bias), F.linear(x, weight, bias),
                x, weight, bias)


def test_conv2d():
    for kernel, stride, padding in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        x, weight, bias = leaf(2, 3, 9, 8), leaf(4, 3, kernel, kernel), leaf(4)
        ours = layers.conv2d(x, weight, bias, stride, padding)
        assert_same_gradients(ours, F.conv2d(x, weight, bias, stride, padding),
                    x, weight, bias)
        assert ours.shape[-2:] == tuple(
            layers.output_size(n, kernel, stride, padding) for n in (9, 8))


def test_conv2d_without_bias():
    x, weight = leaf(2, 3, 9, 8), leaf(4, 3, 3, 3)
    assert_same_gradients(layers.conv2d(x, weight), F.conv2d(x, weight), x, weight)


def test_max_pool2d():
    for kernel, stride, padding in [(2, None, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1)]:
        x = leaf(2, 3, 9, 8)
        assert_same_gradients(layers.max_pool2d(x, kernel, stride, padding),
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
        assert_same_gradients(layers.softmax(logits), F.softmax(logits, dim=-1), logits)


@pytest.mark.parametrize("offset", [-1e4, 0, 1e4])
def test_cross_entropy(offset):
    logits, target = leaf(4, 10, scale=3), torch.tensor([3, 0, 9, 9])
    assert_same_gradients(layers.cross_entropy(logits + offset, target),
                F.cross_entropy(logits + offset, target), logits)


def test_cross_entropy_of_a_hopeless_answer_is_finite():
    logits = torch.tensor([[0.0, 1000.0]], requires_grad=True)
    loss = layers.cross_entropy(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 1000
    assert logits.grad.tolist() == [[-1, 1]]


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


def test_a_gain_near_12_keeps_the_gradient_through_sigmoids():
    """Less lets it vanish, more lets it explode."""
    ratios = [sizes[0] / sizes[-1] for sizes in (
        layers.gradient_sizes(layers.sigmoid, gain, seed=0) for gain in (8, 12, 16))]
    assert ratios[0] < 0.1 < ratios[1] < 10 < ratios[2]


def test_sigmoid_has_a_gradient_where_exp_overflows():
    x = torch.tensor([-200.0, 0, 200], requires_grad=True)
    layers.sigmoid(x).sum().backward()
    assert x.grad.tolist() == [0, 0.25, 0]


def test_the_mean_square_doubles_or_stays_or_halves_with_the_variance():
    """Through a ReLU, at variances of 4/n, 2/n and 1/n; over many networks."""
    for variance in (4, 2, 1):
        squares = torch.stack([layers.activation_inputs(
            layers.relu, variance ** 0.5, seed) for seed in range(30)]).square()
        by_layer = squares.mean((2, 3))
        growth = (by_layer[:, 1:5] / by_layer[:, :4]).mean().item()
        assert growth == pytest.approx(variance / 2, rel=0.1)
