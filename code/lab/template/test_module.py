"""NewNet held against what its paper states."""

from functools import partial

import torch

import new_net
from declared import Case, images
from lab import measure

batch = partial(images, channels=1, size=8)
control = partial(new_net.NewNet, pointwise=False)
# Small instances, of which every nn.Module of the module is a part.
CASES = {
    "NewNet": Case(new_net.NewNet, batch),
    "NewNet control": Case(control, batch),
}
# Where torchvision has the model: the same name, outputs and gradients, and the same
# speed (from declared import Reference).
# REFERENCES = [Reference("new_net", size=64, published=True, timed=2)]


def test_parameters():
    """Layer by layer: kernels, then biases."""
    layers = [9 * 16 + 16, 16 * 16 + 16, 9 * 16 * 32 + 32, 32 * 32 + 32, 32 * 10 + 10]
    assert measure.parameters(new_net.NewNet()) == sum(layers)


def test_a_block_mixes_the_channels_of_a_position():
    """Its 1x1 convolution is a linear layer, the same for each position."""
    layer, x = new_net.Block(1, 4).pointwise, torch.randn(2, 4, 3, 3)
    mixed = x.movedim(1, -1) @ layer.weight[:, :, 0, 0].T + layer.bias
    torch.testing.assert_close(layer(x), mixed.movedim(-1, 1))
