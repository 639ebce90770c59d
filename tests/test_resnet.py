"""ResNet held against what its paper states."""

from functools import partial

import pytest
import torch
from torch import nn

import resnet
from declared import Case, Reference, images
from lab import measure


def cifar(**options):
    return Case(partial(resnet.CifarResNet, depth=14, width=8, **options),
                partial(images, channels=3, size=16))


def imagenet(block):
    return Case(partial(resnet.ResNet, block, (1, 2, 1, 1), num_classes=10),
                partial(images, channels=3, size=64))


CASES = {
    "CifarResNet": cifar(),
    "CifarResNet plain": cifar(plain=True),
    "ResNet BasicBlock": imagenet(resnet.BasicBlock),
    "ResNet Bottleneck": imagenet(resnet.Bottleneck),
    "ResNet BottleneckV1": imagenet(resnet.BottleneckV1),
}
REFERENCES = [Reference("resnet18", size=64, timed=4),
              Reference("resnet34", size=64),
              Reference("resnet50", size=64, published=True, timed=2),
              Reference("resnet101", size=64),
              Reference("resnet152", size=48)]


def test_v1():
    """The paper's bottleneck strides in its first 1x1, torchvision's in its 3x3."""
    paper = resnet.resnet50(block=resnet.BottleneckV1)
    library = resnet.resnet50()
    for model, strides in [(paper, (2, 1, 1)), (library, (1, 2, 1))]:
        for stage in (model.layer2, model.layer3, model.layer4):
            first, *others = stage
            assert strides == tuple(
                conv.stride[0] for conv in (first.conv1, first.conv2, first.conv3))
            assert {conv.stride for block in others for conv in block.modules()
                    if isinstance(conv, nn.Conv2d)} == {(1, 1)}
    shapes = {key: value.shape for key, value in library.state_dict().items()}
    assert shapes == {key: value.shape for key, value in paper.state_dict().items()}
    image = (1, 3, 224, 224)
    assert measure.multiply_adds(paper, image) < measure.multiply_adds(library, image)


@pytest.mark.parametrize("depth, millions", [
    pytest.param(depth, millions, id=str(depth)) for depth, millions in [
        (20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]])
def test_cifar_parameters(depth, millions):
    """As many as in the paper's table 6, with as many layers as the name says."""
    model = resnet.CifarResNet(depth)
    digits = len(str(millions).partition(".")[2])
    assert round(measure.parameters(model) / 1e6, digits) == millions
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth
    plain = resnet.CifarResNet(depth, plain=True)
    assert measure.parameters(plain) == measure.parameters(model)


def test_zero_padding():
    """Shortcut A: every second pixel, and zeros in the new channels."""
    x = torch.randn(2, 3, 8, 8)
    y = resnet.ZeroPadding(3, 5, stride=2)(x)
    assert y.shape == (2, 5, 4, 4)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()
