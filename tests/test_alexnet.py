"""AlexNet held against what its paper and torchvision state."""

from functools import partial

import pytest
import torch
from torch import nn

import alexnet
from declared import Case, Reference, images
from lab import measure

SMALL = {"channels": (8, 16, 16, 16, 16), "hidden_size": 32}
CASES = {
    "AlexNet": Case(partial(alexnet.AlexNet, num_classes=10, hidden_size=64),
                    partial(images, channels=3, size=64)),
    "AlexNetOriginal": Case(
        partial(alexnet.AlexNetOriginal, num_classes=10, hidden_size=256, dropout=0.1,
                channels=(32, 32, 32, 32, 32)), partial(images, channels=3, size=227)),
    "SmallAlexNet": Case(alexnet.SmallAlexNet, partial(images, channels=3, size=32)),
    "SmallAlexNet tanh": Case(
        partial(alexnet.SmallAlexNet, activation=nn.Tanh, dropout=0.5),
        partial(images, channels=3, size=32)),
}
REFERENCES = [Reference("alexnet", size=96, published=True, timed=4)]


@pytest.fixture(scope="module")
def original():
    """The network of 2012; shapes only."""
    with torch.device("meta"):
        return alexnet.AlexNetOriginal()


def inputs_of(model, x):
    """What each layer with weights reads when x passes, {layer: tensor}."""
    read, hooks = {}, []
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            hooks.append(layer.register_forward_pre_hook(
                lambda layer, inputs: read.update({layer: inputs[0]})))
    model(x)
    for hook in hooks:
        hook.remove()
    return read


def test_parameters(original):
    """60,965,224 in the network of the paper's figure 2 ("60 million"), by layer."""
    found = {name: measure.parameters(layer)
             for name, layer in original.named_children()}
    assert {name: count for name, count in found.items() if count} == {
        "conv1": 96 * (3 * 11 * 11 + 1), "conv2": 256 * (48 * 5 * 5 + 1),
        "conv3": 384 * (256 * 3 * 3 + 1), "conv4": 384 * (192 * 3 * 3 + 1),
        "conv5": 256 * (192 * 3 * 3 + 1), "fc6": 4096 * (6 * 6 * 256 + 1),
        "fc7": 4096 * (4096 + 1), "fc8": 1000 * (4096 + 1)}
    assert measure.parameters(original) == 60_965_224
    with torch.device("meta"):
        assert measure.parameters(alexnet.alexnet()) == 61_100_840


def test_neurons(original):
    """As in the caption of figure 2, but for the first layer: 253,440 there, which is
    55 x 48 x 96; 96 maps of 55 x 55 are 290,400."""
    assert list(alexnet.neurons(original, 227).values()) == [
        96 * 55 * 55, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]


def test_input(original):
    """227 pixels give the 55x55 maps of figure 2; the 224 of the text do not."""
    pictures = [torch.empty(1, 3, side, side, device="meta") for side in (224, 227)]
    sides = {len(picture[0, 0]): original.conv1(picture).shape[-1]
             for picture in pictures}
    assert sides == {224: 54, 227: 55}
    read = inputs_of(original, torch.empty(1, 3, 227, 227, device="meta"))
    assert [tuple(x.shape[1:]) for x in read.values()] == [
        (3, 227, 227), (96, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13),
        (9216,), (4096,), (4096,)]


def written_out(a, k, n, alpha, beta):
    """Section 3.3, channel by channel."""
    channels, half = a.shape[1], n // 2
    b = torch.empty_like(a)
    for i in range(channels):
        first, last = max(0, i - half), min(channels - 1, i + half)
        energy = sum(a[:, j] ** 2 for j in range(first, last + 1))
        b[:, i] = a[:, i] / (k + alpha * energy) ** beta
    return b


def test_response_norm():
    """Ours and the model's are the paper's formula with its constants."""
    a = 100 * torch.randn(2, 9, 3, 3)   # so that the sum counts beside k
    expected = written_out(a, k=2, n=5, alpha=1e-4, beta=0.75)
    torch.testing.assert_close(alexnet.local_response_norm(a), expected)
    torch.testing.assert_close(alexnet.AlexNetOriginal(**SMALL).norm(a), expected)
    unadapted = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)(a)
    assert (unadapted - expected).abs().max() > 0.1 * expected.abs().max()


@pytest.mark.parametrize("n", [1, 3, 5])
def test_response_norm_is_torchs(n):
    """Equal to nn.LocalResponseNorm, whose alpha is n times the paper's."""
    a = torch.randn(2, 7, 4, 4)
    torch.testing.assert_close(
        alexnet.local_response_norm(a, k=1, n=n, alpha=0.3, beta=0.5),
        nn.LocalResponseNorm(n, alpha=0.3 * n, beta=0.5, k=1)(a))


def test_groups():
    """conv2, conv4 and conv5 see the maps of their own half only, conv3 all."""
    model = alexnet.AlexNetOriginal(**SMALL)
    for layer in [model.conv2, model.conv3, model.conv4, model.conv5]:
        x = torch.randn(1, layer.in_channels, 5, 5, requires_grad=True)
        layer(x)[:, :layer.out_channels // 2].square().sum().backward()
        first, second = x.grad.abs().sum((0, 2, 3)).chunk(2)
        assert first.all()
        assert second.all() if layer is model.conv3 else not second.any()


def test_grouping_saves_half_of_three_layers(original):
    found = alexnet.facts()
    grouped = [original.conv2, original.conv4, original.conv5]
    weights = [layer.weight.numel() for layer in grouped]
    sides = [27, 13, 13]
    assert found["saved_parameters"] == sum(weights)
    assert found["saved_multiply_adds"] == sum(
        n * side ** 2 for n, side in zip(weights, sides))


def test_matrices_have_most_weights(original):
    """And the convolutions do most of the work."""
    found = alexnet.facts()
    matrices = sum(measure.parameters(layer)
                   for layer in [original.fc6, original.fc7, original.fc8])
    assert found["original_matrix_parameters"] == matrices
    for name in ["original", "alexnet"]:
        assert 0.94 < found[f"{name}_matrix_share"] < 0.97
        assert 0.91 < found[f"{name}_convolution_work_share"] < 0.93


def test_initialisation():
    """Section 5: standard deviation 0.01, biases 1 where the paper says so, else 0."""
    model = alexnet.AlexNetOriginal(channels=(32, 32, 32, 32, 32), hidden_size=64)
    biases = {}
    for name, layer in model.named_children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
            biases[name] = layer.bias.unique().tolist()
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert biases == {name: [float(name in ones)] for name in biases}


def test_dropout():
    """The paper drops the outputs of fc6 and fc7, torchvision what goes into them."""
    model = alexnet.AlexNetOriginal(dropout=1.0, **SMALL)
    read = inputs_of(model, torch.randn(1, 3, 227, 227))
    assert [bool(read[layer].any()) for layer in [model.fc6, model.fc7, model.fc8]] == [
        True, False, False]
    model = alexnet.AlexNet(dropout=1.0, hidden_size=32)
    read = inputs_of(model, torch.randn(1, 3, 64, 64))
    assert [bool(x.any()) for layer, x in read.items()
            if isinstance(layer, nn.Linear)] == [False, False, True]


@pytest.mark.parametrize("name", ["original", "alexnet"])
def test_receptive_field(name):
    """As many pixels across change the value in the middle of the last maps."""
    if name == "original":
        model = alexnet.AlexNetOriginal(**SMALL, groups=1)
        layers = [model.conv1, model.pool, model.conv2, model.pool, model.conv3,
                  model.conv4, model.conv5, model.pool]
    else:
        layers = [layer for layer in alexnet.AlexNet(hidden_size=8).features
                  if not isinstance(layer, nn.ReLU)]
    # the mean of a window depends on all of it, the maximum on one value
    layers = nn.Sequential(*(nn.AvgPool2d(3, 2) if isinstance(layer, nn.MaxPool2d)
                             else layer for layer in layers)).double()
    for parameter in layers.parameters():
        nn.init.constant_(parameter, 0.01)
    x = torch.ones(1, 3, 451, 451, dtype=torch.double, requires_grad=True)
    y = layers(x)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    seen = x.grad.abs().sum((0, 1, 2)).count_nonzero()
    assert seen == alexnet.facts()[f"{name}_receptive_field"]


def test_control_differs_only_in_its_activation():
    models = []
    for activation in [nn.ReLU, nn.Tanh]:
        torch.manual_seed(0)
        models.append(alexnet.SmallAlexNet(activation=activation))
    states = [model.state_dict() for model in models]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    kinds = [[str(layer) for layer in model.modules() if not list(layer.children())]
             for model in models]
    different = [pair for pair in zip(*kinds, strict=True) if pair[0] != pair[1]]
    assert different == 4 * [("ReLU()", "Tanh()")]
    assert "Dropout(p=0.0, inplace=False)" in kinds[0]


def test_epochs_until():
    history = {"training_error": [0.8, 0.3, 0.25, 0.3, 0.1]}
    assert alexnet.epochs_until(history) == 3
    assert alexnet.epochs_until(history, error=0.05) is None
