"""ConvNeXt held against its paper, torchvision and the ResNet that it comes from."""

from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlock as ReferenceBlock

import convnext
import resnet
from declared import Case, Reference, images
from lab import measure

CASES = {
    "ConvNeXt": Case(
        partial(convnext.ConvNeXt, (1, 2), (8, 16), drop_probability=0.1,
                num_classes=10), partial(images, channels=3, size=32)),
    "RoadNet": Case(partial(convnext.road_network, "kernel", width=8),
                    partial(images, channels=3, size=32)),
}
# Several samples: some must survive stochastic depth.
REFERENCES = [Reference("convnext_tiny", size=32, samples=8, published=True, timed=2),
              *(Reference(f"convnext_{name}", size=32, samples=8)
                for name in ("small", "base", "large"))]


@pytest.mark.parametrize("name, millions, billions", [
    ("convnext_tiny", 29, 4.5), ("convnext_small", 50, 8.7),
    ("convnext_base", 89, 15.4), ("convnext_large", 198, 34.4)])
def test_paper(name, millions, billions):
    """As many parameters and multiply-adds as the paper's table 1 states."""
    with torch.device("meta"):
        model = getattr(convnext, name)()
    work = measure.multiply_adds(model, (1, 3, 224, 224))
    assert round(measure.parameters(model) / 1e6) == millions
    assert round(work / 1e9, 1) == billions


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_stochastic_depth(probability, training):
    """The numbers that torchvision's draws, sample by sample."""
    x = torch.randn(64, 3, 2, 2)
    results = []
    for function in [convnext.stochastic_depth,
                     partial(torchvision.ops.stochastic_depth, mode="row")]:
        torch.manual_seed(1)
        results.append(function(x, probability, training=training))
        results.append(torch.rand(1))  # as many random numbers are used up
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    if training and probability == 0.3:
        kept = results[0].flatten(1).any(dim=1)
        assert 0 < kept.sum() < len(x)
        torch.testing.assert_close(results[0][kept], x[kept] / 0.7)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_small",
                                  "convnext_base", "convnext_large"])
def test_drop_probabilities(name):
    """Each block's is torchvision's: from 0 for the first one up."""
    with torch.device("meta"):
        ours = getattr(convnext, name)()
        reference = torchvision.models.get_model(name)
    found = [block.p for block in ours.modules()
             if isinstance(block, convnext.CNBlock)]
    assert found == [block.stochastic_depth.p for block in reference.modules()
                     if isinstance(block, ReferenceBlock)]
    assert found[0] == 0 and found[-1] > 0


def test_initialisation():
    """torchvision's: with the same seed the same numbers."""
    torch.manual_seed(1)
    ours = convnext.convnext_tiny().state_dict()
    torch.manual_seed(1)
    reference = torchvision.models.convnext_tiny().state_dict()
    for key, value in reference.items():
        assert torch.equal(ours[key], value), key


def test_layer_norm():
    """Mean 0 and variance 1 over the channels of each pixel."""
    x = 3 + 2 * torch.randn(2, 16, 4, 5)
    y = convnext.LayerNorm2d(16)(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        y.var(1, correction=0), torch.ones(2, 4, 5), atol=1e-3, rtol=0)


def test_depthwise():
    """The first layer of a block sees 7x7 pixels of its own channel only."""
    layer = convnext.CNBlock(4).block[0]
    x = torch.randn(1, 4, 15, 15, requires_grad=True)
    layer(x)[0, 2, 7, 7].backward()
    seen = x.grad[0] != 0
    assert not seen[[0, 1, 3]].any()
    assert seen[2, 4:11, 4:11].all() and seen[2].sum() == 49


def test_a_new_block_copies():
    """With layer scales of 1e-6, as in the paper, it adds next to nothing."""
    x = torch.randn(2, 8, 7, 7)
    torch.testing.assert_close(convnext.CNBlock(8)(x), x, atol=1e-5, rtol=0)
    assert not torch.allclose(convnext.CNBlock(8, layer_scale=1.0)(x), x, atol=1e-2)


@pytest.mark.parametrize("in_channels, stride", [(64, 1), (64, 2), (32, 2)])
def test_road_begins_with_a_bottleneck(in_channels, stride):
    """The first step's block is ResNet's: same parameters, outputs, gradients."""
    ours = convnext.RoadBlock(in_channels, 64, stride, convnext.design("resnet"))
    reference = resnet.Bottleneck(in_channels, 16, stride)
    names = {"block.0": "conv1", "block.1": "bn1", "block.3": "conv2",
             "block.4": "bn2", "block.6": "conv3", "block.7": "bn3"}
    states = {}
    for key, value in ours.state_dict().items():
        part, name = key.rsplit(".", 1)
        states[f"{names.get(part, part)}.{name}"] = value
    reference.load_state_dict(states, strict=True)
    x = torch.randn(2, in_channels, 8, 8)
    assert torch.equal(ours(x), reference(x))


def test_road_ends_with_a_convnext():
    """The last step is a ConvNeXt of CNBlocks and nothing else."""
    model = convnext.road_network("convnext", 8)
    assert type(model) is convnext.ConvNeXt
    kinds = [type(block) for i in (1, 3, 5, 7) for block in model.features[i]]
    assert kinds == 6 * [convnext.CNBlock]
    assert not any(isinstance(m, (nn.BatchNorm2d, nn.ReLU)) for m in model.modules())


@pytest.mark.parametrize("step, kernel, depthwise, norms, activations", [
    ("resnet", 3, False, 3, 3), ("ratio", 3, False, 3, 3),
    ("patchify", 3, False, 3, 3), ("depthwise", 3, True, 3, 3),
    ("inverted", 3, True, 3, 3), ("kernel", 7, True, 3, 3),
    ("sparse", 7, True, 1, 1), ("convnext", 7, True, 1, 1)])
def test_road_blocks(step, kernel, depthwise, norms, activations):
    """What a block that keeps the shape has at each step."""
    model = convnext.road_network(step, 8)
    block = [m for m in model.modules()
             if isinstance(m, (convnext.RoadBlock, convnext.CNBlock))][-2]
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    spatial, = [m for m in convolutions if m.kernel_size != (1, 1)]
    assert spatial.kernel_size == (kernel, kernel)
    assert (spatial.groups == spatial.in_channels) == depthwise
    assert sum(isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))
               for m in block.block) == norms
    found = [m for m in block.modules() if isinstance(m, (nn.ReLU, nn.GELU))]
    # the ReLU after a sum and that inside are modules of their own
    assert len(found) == activations


@pytest.mark.parametrize("step", convnext.ROAD)
def test_new_blocks_of_the_road_change_what_they_get(step):
    """None starts as nearly the identity, as all with weights of deviation 0.02 do."""
    ratios = []

    def measure_branch(block, inputs, _):
        scale = getattr(block, "layer_scale", 1)
        shortcut = getattr(block, "downsample", nn.Identity())(inputs[0])
        ratios.append(float((scale * block.block(inputs[0])).std() / shortcut.std()))

    torch.manual_seed(0)
    model = convnext.road_network(step, 8)
    blocks = [block for block in model.modules()
              if isinstance(block, (convnext.RoadBlock, convnext.CNBlock))]
    for block in blocks:
        block.register_forward_hook(measure_branch)
    with torch.no_grad():
        model(torch.randn(16, 3, 32, 32))
    assert len(ratios) == len(blocks)
    assert 0.4 < min(ratios) and max(ratios) < 2, ratios


def test_road_changes_are_kept():
    """Each step has all changes before it."""
    designs = [convnext.design(step) for step in convnext.ROAD]
    assert designs[0] == convnext.Design()
    for before, after, (_, change) in zip(designs, designs[1:],
                                          list(convnext.ROAD.values())[1:]):
        different = {key for key in vars(after)
                     if vars(after)[key] != vars(before)[key]}
        assert different == set(change)


@pytest.mark.parametrize("width, channels, size", [(8, 1, 16), (8, 3, 32),
                                                   (16, 3, 32)])
def test_equal_multiply_adds(width, channels, size):
    """Every step does within 10 % the work of the ResNet."""
    work = [measure.multiply_adds(convnext.road_network(step, width, channels),
                                  (1, channels, size, size)) for step in convnext.ROAD]
    assert all(0.9 < found / work[0] < 1.1 for found in work)
