"""VGG held against what its paper states."""

from functools import partial

import pytest
import torch
from torch import nn

import vgg
from declared import Case, Reference, images
from lab import measure

CASES = {
    "VGG": Case(
        lambda: vgg.VGG(vgg.make_layers([8, "M", (16, 1), "LRN"]), 10, hidden_size=64),
        partial(images, channels=3, size=16)),
    "SmallVGG": Case(partial(vgg.small_vgg, in_channels=1, width=8),
                     partial(images, channels=1, size=16)),
}
REFERENCES = [
    *(Reference(name, size=32) for name in (
        "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg19", "vgg19_bn")),
    Reference("vgg16", size=32, published=True, timed=1),
    Reference("vgg16_bn", size=32, timed=1)]


def build(name):
    with torch.device("meta"):
        return getattr(vgg, name)()


def weighted(model):
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


@pytest.mark.parametrize("name, layers, millions", [
    pytest.param(*row, id=row[0]) for row in [
        ("vgg11", 11, 133), ("vgg11_lrn", 11, 133), ("vgg13", 13, 133),
        ("vgg16_c", 16, 134), ("vgg16", 16, 138), ("vgg19", 19, 144)]])
def test_paper_parameters(name, layers, millions):
    """As many as in the paper's table 2, with as many layers as in table 1."""
    model = build(name)
    assert round(measure.parameters(model) / 1e6) == millions
    assert len(weighted(model)) == layers


def test_configuration_c():
    """It is D with a 1x1 convolution for the third of each of the last three stages."""
    sides = [layer.kernel_size[0] for layer in build("vgg16_c").features
             if isinstance(layer, nn.Conv2d)]
    assert sides == 4 * [3] + 3 * [3, 3, 1]
    shapes = [build(name).features(torch.empty(1, 3, 224, 224, device="meta")).shape
              for name in ("vgg16_c", "vgg16")]
    assert shapes == 2 * [(1, 512, 7, 7)]


def test_lrn():
    """AlexNet's formula, section 3.3, with its constants; after the first ReLU only."""
    layers = list(vgg.make_layers(vgg.CONFIGURATIONS["A-LRN"]))
    assert [type(layer) for layer in layers[:4]] == [
        nn.Conv2d, nn.ReLU, nn.LocalResponseNorm, nn.MaxPool2d]
    assert len(layers) == len(vgg.make_layers(vgg.CONFIGURATIONS["A"])) + 1
    x = 20 * torch.rand(2, 9, 3, 3)
    near = [x[:, max(0, i - 2):i + 3].square().sum(1) for i in range(9)]
    expected = x / (2 + 1e-4 * torch.stack(near, 1)) ** 0.75
    torch.testing.assert_close(layers[2](x), expected)


def test_pooling_changes_nothing_at_224():
    """torchvision's adaptive pooling is not in the paper: at 7x7 it is the identity."""
    x = torch.randn(1, 512, 7, 7)
    torch.testing.assert_close(build("vgg16").avgpool(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("count, side, field", [(2, 3, 5), (1, 5, 5), (3, 3, 7),
                                                (1, 7, 7)])
def test_receptive_field(count, side, field):
    """Which pixels move the middle of the output, found by a gradient."""
    layers = vgg.make_layers(count * [(8, side)], in_channels=1)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1)
    image = torch.ones(1, 1, 15, 15, requires_grad=True)
    layers(image)[0, 0, 7, 7].backward()
    seen = image.grad[0, 0] != 0
    margin = (15 - field) // 2
    expected = torch.zeros(15, 15, dtype=torch.bool)
    expected[margin:-margin, margin:-margin] = True
    assert torch.equal(seen, expected)
    assert measure.receptive_fields(layers)[-1] == field


@pytest.mark.parametrize("channels", [1, 64, 512])
def test_weights_of_three(channels):
    """Section 2.3: 27 C^2 against 49 C^2, which is 81 % more."""
    three = vgg.make_layers(3 * [channels], in_channels=channels)
    seven = vgg.make_layers([(channels, 7)], in_channels=channels)
    assert vgg.weights_of(three) == 27 * channels ** 2
    assert vgg.weights_of(seven) == 49 * channels ** 2
    assert int(100 * (vgg.weights_of(seven) / vgg.weights_of(three) - 1)) == 81


@pytest.mark.parametrize("width", [16, 32])
def test_only_the_middle_differs(width):
    """The networks compared have the same layers before and after it."""
    sides = vgg.sides(vgg.Settings(width=width))
    three, seven = [vgg.around(sides[name][1], width)(1)
                    for name in ("three_3x3", "one_7x7")]

    def parts(model):
        before, *middle, after = [m for m in model.features if isinstance(m, nn.Conv2d)]
        return ([str(before), str(after), str(model.classifier)],
                [(conv.kernel_size[0], conv.out_channels) for conv in middle])

    assert parts(three)[0] == parts(seven)[0]
    assert parts(three)[1] == 3 * [(3, width)] and parts(seven)[1] == [(7, width)]
    x = torch.randn(2, 1, 16, 16)
    assert {model.features(x).shape for model in (three, seven)} == {
        (2, 4 * width, 4, 4)}


def test_signal_sizes():
    """Ten times the weights: 10^n times the signal after n layers; none with a norm."""
    images = torch.randn(4, 1, 32, 32)

    def sizes(**options):
        torch.manual_seed(1)
        return torch.tensor(vgg.signal_sizes(images, **options))

    small, large = sizes(std=0.01), sizes(std=0.1)
    assert len(small) == 16
    torch.testing.assert_close(large / small, 10.0 ** torch.arange(1, 17), rtol=1e-3,
                               atol=0)
    normed = [sizes(std=std, batch_norm=True) for std in (0.01, 0.1)]
    torch.testing.assert_close(*normed, rtol=0.1, atol=0)


def test_small_vgg():
    """For 32x32 images: seven 3x3 convolutions, each with batch norm."""
    model = vgg.small_vgg(in_channels=1, num_classes=7)
    kinds = [type(layer) for layer in model.features]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.BatchNorm2d) == 7
    assert {m.kernel_size for m in model.features if isinstance(m, nn.Conv2d)} == {
        (3, 3)}
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert 0.3e6 < measure.parameters(model) < 1e6
