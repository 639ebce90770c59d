"""What heads cost, counted in whole layers, and how they are read out."""

from functools import partial

import pytest
import torch
from torch import nn

import heads
from declared import Case, per_position
from lab import measure
from multi_head import MultiHeadAttention, Neighbours, neighbours


def around():
    """Words, and those before and after each."""
    words, target = neighbours(4, 6, None)
    return (words,), target


CASES = {"Neighbours with a hidden layer": Case(
    lambda: heads.with_hidden_layer(Neighbours(1, length=6, embed_dim=32), 64),
    around, per_position)}


@pytest.mark.parametrize("n", [10, 100])
def test_real_costs(n):
    """Multiply-adds counted in whole layers, attention with its projections."""
    d = 32
    costs, x = heads.real_costs(n, d), (1, n, d)
    layer = MultiHeadAttention(d, 4)
    assert measure.multiply_adds(layer, x, x, x) == costs["projected"]
    for name, build in ("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM):
        matrices = [weight.numel() for weight in build(d, d).parameters()
                    if weight.dim() == 2]
        assert n * sum(matrices) == costs[name]
    equal = heads.real_costs(2 * d, d)
    assert equal["projected"] == equal["lstm"]


def test_only_the_readout_has_a_hidden_layer():
    """Attention and embeddings are those of the network that is read out linearly."""
    build = partial(Neighbours, 1, length=6, embed_dim=32)
    torch.manual_seed(0)
    linear = build()
    torch.manual_seed(0)
    hidden = heads.with_hidden_layer(build(), 64)
    assert [type(layer) for layer in hidden.output] == [nn.Linear, nn.ReLU, nn.Linear]
    for name, weight in hidden.state_dict().items():
        if not name.startswith("output"):
            assert torch.equal(weight, linear.state_dict()[name]), name
