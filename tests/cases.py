"""For each model a small instance, a batch and a loss: all generic tests use them.

A key is MODULE.NAME, and may say more after a space. Each public nn.Module of a
module of code/ must be part of one of the module's models here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import layers
import lenet
import resnet


def images(channels, size, classes=10, samples=4):
    """Random pictures and classes: ((images,), labels)."""
    pictures = torch.randn(samples, channels, size, size)
    return (pictures,), torch.randint(classes, (samples,))


@dataclass(frozen=True)
class Case:
    """build() -> model; batch() -> (inputs, target); loss(output, target) -> scalar.

    The model is called as model(*inputs). Random numbers are the test's to seed.
    """
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple]
    loss: Callable = F.cross_entropy


def cifar(**options):
    return Case(partial(resnet.CifarResNet, depth=14, width=8, **options),
                partial(images, channels=3, size=16))


def imagenet(block):
    return Case(partial(resnet.ResNet, block, (1, 2, 1, 1), num_classes=10),
                partial(images, channels=3, size=64))


CASES = {
    "layers.convolutions": Case(partial(layers.convolutions, depth=3, width=8),
                                partial(images, channels=1, size=8)),
    "layers.perceptron": Case(partial(layers.perceptron, dropout=0.5),
                              partial(images, channels=1, size=8)),
    "lenet.LeNet5": Case(lenet.LeNet5, partial(images, channels=1, size=28)),
    "lenet.FullyConnected": Case(lenet.FullyConnected,
                                 partial(images, channels=1, size=28)),
    "lenet.LeNet5Original": Case(lenet.LeNet5Original,
                                 partial(images, channels=1, size=28),
                                 lenet.map_loss),
    "resnet.CifarResNet": cifar(),
    "resnet.CifarResNet plain": cifar(plain=True),
    "resnet.ResNet BasicBlock": imagenet(resnet.BasicBlock),
    "resnet.ResNet Bottleneck": imagenet(resnet.Bottleneck),
    "resnet.ResNet BottleneckV1": imagenet(resnet.BottleneckV1),
}
