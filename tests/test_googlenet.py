"""GoogLeNet held against the paper's table 1, its naive control and torchvision."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import googlenet
from declared import Case, Reference, images
from lab import measure

IMAGE = (1, 3, 224, 224)
# Table 1: parameters in K, which is 1024 there, and multiply-adds in M.
PAPER = {
    "conv1": (2.7, 34), "conv2": (112, 360),
    "3a": (159, 128), "3b": (380, 304),
    "4a": (364, 73), "4b": (437, 88), "4c": (463, 100), "4d": (580, 119),
    "4e": (840, 170), "5a": (1072, 54), "5b": (1388, 71), "linear": (1000, 1),
}
# The rows in which the widths of table 1 do not give what it says.
OTHER_PARAMETERS = {"conv1", "4a", "4c", "4d", "4e", "5a", "5b"}
OTHER_MULTIPLY_ADDS = {"conv1", "4a", "5a"}


def inceptions(network, size):
    table = {name: [n // 8 for n in widths]
             for name, widths in googlenet.TABLE1.items()}
    return Case(partial(network, num_classes=10, table=table),
                partial(images, channels=3, size=size), googlenet.googlenet_loss)


def small(loss=F.cross_entropy, **options):
    return Case(
        partial(googlenet.SmallGoogLeNet, 1, width=1 / 8, stride=2, **options),
        partial(images, channels=1, size=32), loss)


CASES = {
    "GoogLeNet": inceptions(googlenet.GoogLeNet, size=64),
    "GoogLeNetPaper": inceptions(googlenet.GoogLeNetPaper, size=32),
    "SmallGoogLeNet": small(),
    "SmallGoogLeNet heads": small(googlenet.googlenet_loss, aux_logits=True),
    "SmallGoogLeNet naive": small(block=googlenet.NaiveInception),
}
REFERENCES = [Reference("googlenet", size=96, options={"init_weights": False},
                        counted={"aux_logits": False}, published=True, timed=2)]


@pytest.fixture
def paper():
    with torch.device("meta"):
        return googlenet.GoogLeNetPaper(aux_logits=False)


def rows(model):
    """{row of table 1: its convolutions and linear layers} of a GoogLeNet."""
    parts = {"conv1": [model.conv1], "conv2": [model.conv2, model.conv3],
             **{row: [model.get_submodule(f"inception{row}")]
                for row in googlenet.TABLE1}, "linear": [model.fc]}
    return {row: [layer for part in modules for layer in part.modules()
                  if isinstance(layer, (nn.Conv2d, nn.Linear))]
            for row, modules in parts.items()}


def computed(model):
    """{row: (weights, multiply-adds)}: each weight works once at each position."""
    sides = {"1": 112, "2": 56, "3": 28, "4": 14, "5": 7}
    found = {}
    for row, layers in rows(model).items():
        weights = sum(layer.weight.numel() for layer in layers)
        side = 1 if row == "linear" else sides[row.removeprefix("conv")[0]]
        found[row] = weights, weights * side ** 2
    return found


def test_parameters():
    """As torchvision's; the paper's own layers as in its published copy in Caffe."""
    with torch.device("meta"):
        for build, heads, number in [
                (googlenet.googlenet, False, 6_624_904),
                (googlenet.googlenet, True, 13_004_888),
                (googlenet.GoogLeNetPaper, False, 6_998_552)]:
            assert measure.parameters(build(aux_logits=heads)) == number


def test_table1(paper):
    """Weights and multiply-adds row by row; where they differ, by at most 8 %."""
    rows = computed(paper)
    assert rows.keys() == PAPER.keys()
    assert sum(cost for _, cost in rows.values()) == measure.multiply_adds(paper, IMAGE)
    assert {row for row, (weights, _) in rows.items()
            if abs(weights / 1024 - PAPER[row][0]) > 1} == OTHER_PARAMETERS
    assert {row for row, (_, cost) in rows.items()
            if round(cost / 1e6) != PAPER[row][1]} == OTHER_MULTIPLY_ADDS
    for row in rows.keys() - {"conv1"}:
        weights, cost = rows[row]
        assert weights / 1024 == pytest.approx(PAPER[row][0], rel=0.08)
        assert cost / 1e6 == pytest.approx(PAPER[row][1], rel=0.06)


def test_table1_shapes(paper):
    """Output sizes of the table: 112, 56, 28, 14 and 7, with 64 to 1024 channels."""
    expected = {
        "conv1": (64, 112), "maxpool1": (64, 56), "conv3": (192, 56),
        "maxpool2": (192, 28), "inception3a": (256, 28), "inception3b": (480, 28),
        "maxpool3": (480, 14), "inception4a": (512, 14), "inception4b": (512, 14),
        "inception4c": (512, 14), "inception4d": (528, 14), "inception4e": (832, 14),
        "maxpool4": (832, 7), "inception5a": (832, 7), "inception5b": (1024, 7)}
    found = {}
    for name in expected:
        paper.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name:
            found.update({name: (output.shape[1], output.shape[2])}))
    paper.eval()(torch.empty(IMAGE, device="meta"))
    assert found == expected


def test_first_row_fits_a_separable_convolution():
    """2.7K and 34M: what a depthwise 7x7 with 8 maps a colour and a 1x1 would have."""
    separable = nn.Sequential(
        nn.Conv2d(3, 24, 7, stride=2, padding=3, groups=3, bias=False),
        nn.Conv2d(24, 64, 1, bias=False))
    facts = googlenet.facts()
    assert measure.parameters(separable) == facts["separable_conv1_parameters"]
    cost = measure.multiply_adds(separable, IMAGE)
    assert cost == facts["separable_conv1_multiply_adds"]
    assert round(measure.parameters(separable) / 1e3, 1) == PAPER["conv1"][0]
    assert round(cost / 1e6) == PAPER["conv1"][1]


def test_paper_variant():
    """5x5, biases, response norm twice, dropout 0.4, no batch norm."""
    model = googlenet.GoogLeNetPaper(aux_logits=False)
    for row in googlenet.TABLE1:
        inception = model.get_submodule(f"inception{row}")
        assert inception.branch3[1].conv.kernel_size == (5, 5)
    layers = list(model.modules())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    assert all(layer.bias is not None for layer in layers
               if isinstance(layer, nn.Conv2d))
    assert model.dropout.p == 0.4
    x = torch.randn(1, 3, 64, 64)
    once = F.local_response_norm(model.maxpool1(model.conv1(x)), 5)
    twice = F.local_response_norm(model.conv3(model.conv2(once)), 5)
    torch.testing.assert_close(model.stem(x), F.max_pool2d(twice, 3, 2, ceil_mode=True))


def test_depth():
    """22 layers with parameters from the image to the logits, 27 with pooling."""
    with torch.device("meta"):
        model = googlenet.GoogLeNetPaper()
    path = googlenet.widest_path(model)
    convolutions = [layer for layer in path if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) + 1 == 22
    # four poolings on the way and the average at the end
    assert len(path) + 1 + 1 == 27


def test_transform_input():
    """The published weights' own normalisation, as torchvision's."""
    theirs = torchvision.models.googlenet(
        transform_input=True, aux_logits=False, init_weights=False)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(googlenet.as_trained(x), theirs._transform_input(x))
    ours = googlenet.googlenet(transform_input=True, aux_logits=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = ours.eval().stem(x)
        ours.transform_input = False
        torch.testing.assert_close(ours.stem(theirs._transform_input(x)), expected)
        assert not torch.allclose(ours.stem(x), expected)


def test_loss():
    """Total = main + 0.3 (aux1 + aux2); without heads only the first."""
    logits = [torch.randn(6, 10) for _ in range(3)]
    labels = torch.randint(10, (6,))
    main, second, first = [F.cross_entropy(each, labels) for each in logits]
    output = googlenet.GoogLeNetOutputs(*logits)
    torch.testing.assert_close(googlenet.googlenet_loss(output, labels),
                               main + 0.3 * (first + second))
    assert googlenet.googlenet_loss(logits[0], labels) == main


def test_heads_work_in_training_only():
    model = googlenet.SmallGoogLeNet(1, aux_logits=True)
    x = torch.randn(2, 1, 32, 32)
    output = model(x)
    assert [part.shape for part in output] == 3 * [(2, 10)]
    assert model.eval()(x).shape == (2, 10)


def test_naive_block_only_lacks_the_reductions():
    """Same 1x1, same channels of 3x3 and 5x5; pooling hands on all of its input."""
    widths = googlenet.TABLE1["3a"]
    build = dict(conv=googlenet.ConvReLU, kernel_size=5)
    naive = googlenet.NaiveInception(192, widths, **build)
    block = googlenet.Inception(192, widths, **build)
    assert repr(naive.branch1) == repr(block.branch1)
    for ours, theirs in [(naive.branch2, block.branch2[1]),
                         (naive.branch3, block.branch3[1])]:
        assert ours.conv.in_channels == 192
        for key in ["out_channels", "kernel_size", "padding", "stride"]:
            assert getattr(ours.conv, key) == getattr(theirs.conv, key)
    x = torch.randn(1, 192, 9, 9)
    assert torch.equal(naive(x)[:, -192:], F.max_pool2d(x, 3, 1, padding=1))
    for each in (naive, block):
        assert each(x).shape == (1, each.out_channels, 9, 9)


@pytest.mark.parametrize("width, stride, channels", [(1 / 8, 2, 1), (1 / 4, 1, 3)])
def test_thinned_costs_as_much(width, stride, channels):
    """The naive network of equal cost has the multiply-adds of the reduced, +-3 %."""
    args = type("Arguments", (), {"width": width, "stride": stride})
    costs = {kind: measure.multiply_adds(googlenet.small(kind, args)(channels),
                                         (1, channels, 32, 32))
             for kind in googlenet.KINDS}
    assert costs["thin"] == pytest.approx(costs["reduced"], rel=0.03)
    assert costs["heads"] == costs["reduced"]  # heads cost nothing in use
    assert costs["naive"] > 5 * costs["reduced"]


def test_small_network():
    model = googlenet.SmallGoogLeNet(3, num_classes=7)
    assert 2e5 < measure.parameters(model) < 1e6
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("branch", [1, 2, 3, 4])
def test_view(branch):
    """The pixels that a value of a branch depends on: there its gradient is not 0."""
    model = googlenet.SmallGoogLeNet(1, stride=2)
    layers = googlenet.windows(
        model.conv1, model.maxpool,
        model.inception3a.get_submodule(f"branch{branch}"))
    first, end = googlenet.view(layers, 5)
    assert end - first == measure.receptive_fields(layers)[-1]
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    y = x
    for layer in layers:  # an average of all values of each window instead
        size, stride, padding = (
            n if isinstance(n, int) else n[0]
            for n in (layer.kernel_size, layer.stride, layer.padding))
        y = F.avg_pool2d(y, size, stride, padding)
    y[0, 0, 5, 5].backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.amin(0).tolist(), seen.amax(0).tolist()) == (
        [first, first], [end - 1, end - 1])


def test_framed():
    """A frame one pixel wide inside the given pixels; the image elsewhere."""
    picture = torch.full((8, 8), 0.5)
    shown = googlenet.framed(picture, 2, 6, zoom=2)
    changed = (shown != 0.5).any(2)[::2, ::2]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    expected[3:5, 3:5] = False
    assert torch.equal(changed, expected)


def test_costs_of_the_blocks(paper):
    """block_costs adds up to what the blocks of the whole network have."""
    costs = googlenet.block_costs(googlenet.Inception)
    blocks = computed(paper)
    for row, (parameters, multiply_adds) in costs.items():
        module = paper.get_submodule(f"inception{row}")
        assert parameters == measure.parameters(module)
        assert multiply_adds == blocks[row][1]
    with torch.device("meta"):
        naive = googlenet.GoogLeNet(
            aux_logits=False, conv=googlenet.ConvReLU, block=partial(
                googlenet.NaiveInception, conv=googlenet.ConvReLU, kernel_size=5))
    for row, (parameters, _) in googlenet.block_costs(googlenet.NaiveInception).items():
        assert parameters == measure.parameters(naive.get_submodule(f"inception{row}"))
