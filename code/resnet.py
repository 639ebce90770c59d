# %% [markdown]
# # ResNet
#
# - **Paper**: Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun.
#   *Deep Residual Learning for Image Recognition*. CVPR 2016.
#   [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)
# - **Idea**: let a block learn what to add to its input, so that doing nothing is
#   easy and more layers can no longer hurt.
# - **Demo**: plain networks against residual networks of 20 and 56 layers: training
#   error, gradient by layer, and what the maps of a trained network show.
# - **Time**: TIME

# %%
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn

from lab import cli, data, figures, measure, results, training, weights


# %% [markdown]
# ## Blocks

# %%
def conv3x3(in_channels, out_channels, stride=1):
    """A 3x3 convolution that keeps height and width at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride,
                     padding=1, bias=False)


# %%
def conv1x1(in_channels, out_channels, stride=1):
    """A linear layer over the channels of each pixel."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride,
                     bias=False)


# %%
def projection(in_channels, out_channels, stride):
    """Shortcut B: the identity, or a 1x1 convolution where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        conv1x1(in_channels, out_channels, stride),
        nn.BatchNorm2d(out_channels),
    )


# %%
class ZeroPadding(nn.Module):
    """Shortcut A: every stride-th pixel, new channels filled with zeros.

    (B, C, H, W) -> (B, out_channels, H / stride, W / stride), without parameters.
    """

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.extra_channels, self.stride = out_channels - in_channels, stride

    def forward(self, x):
        x = x[:, :, ::self.stride, ::self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))


# %%
class PlainBlock(nn.Module):
    """Two 3x3 convolutions, the control: no shortcut.

    (B, C, H, W) -> (B, channels, H / stride, W / stride)
    """
    expansion = 1

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out)


# %%
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, section 3.3.

    (B, C, H, W) -> (B, channels, H / stride, W / stride)
    """
    expansion = 1

    def __init__(self, in_channels, channels, stride=1, shortcut=projection):
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


# %%
class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, figure 5.

    (B, C, H, W) -> (B, 4 channels, H / stride, W / stride)
    """
    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1 = conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        # paper (v1): the stride is in conv1; here and in torchvision: v1.5
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv1x1(channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.downsample(x))


# %%
class BottleneckV1(Bottleneck):
    """The paper's own: the first 1x1 skips pixels, the 3x3 sees a quarter of them."""

    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, self.conv1.stride


# %% [markdown]
# ## The networks for ImageNet, table 1

# %%
def stage(block, in_channels, channels, depth, stride):
    """`depth` blocks in a row; the first one changes the shape."""
    blocks = [block(in_channels, channels, stride)]
    for _ in range(1, depth):
        blocks.append(block(channels * blocks[0].expansion, channels))
    return nn.Sequential(*blocks)


# %%
class ResNet(nn.Module):
    """(B, 3, H, W) -> logits (B, K); H and W are 224 in the paper."""

    def __init__(self, block, depths, num_classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        in_channels = 64
        for i, (channels, depth) in enumerate(zip((64, 128, 256, 512), depths)):
            stride = 1 if i == 0 else 2
            setattr(self, f"layer{i + 1}",
                    stage(block, in_channels, channels, depth, stride))
            in_channels = channels * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, num_classes)
        self.apply(he_initialise)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))              # (B, 64, H/2, W/2)
        x = self.layer1(self.maxpool(x))                 # H/4
        x = self.layer4(self.layer3(self.layer2(x)))     # (B, C, H/32, W/32)
        return self.fc(self.avgpool(x).flatten(1))


# %%
def he_initialise(module):
    """Weights from N(0, 2 / fan-out): He et al. 2015, as in torchvision."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# %%
def resnet18(num_classes=1000):
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet34(num_classes=1000):
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes)


def resnet50(num_classes=1000, block=Bottleneck):
    return ResNet(block, (3, 4, 6, 3), num_classes)


def resnet101(num_classes=1000, block=Bottleneck):
    return ResNet(block, (3, 4, 23, 3), num_classes)


def resnet152(num_classes=1000, block=Bottleneck):
    return ResNet(block, (3, 8, 36, 3), num_classes)


# %% [markdown]
# ## The networks for CIFAR-10, section 4.2

# %%
class CifarResNet(nn.Module):
    """6n + 2 layers: a convolution, three stages of n blocks, a linear layer.

    (B, C, H, W) -> logits (B, K); in the paper C = 3, H = W = 32, width 16.
    """

    def __init__(self, depth, width=16, plain=False, in_channels=3, num_classes=10):
        super().__init__()
        block = PlainBlock if plain else partial(BasicBlock, shortcut=ZeroPadding)
        n = (depth - 2) // 6
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(block, width, width, n, stride=1)
        self.layer2 = stage(block, width, 2 * width, n, stride=2)
        self.layer3 = stage(block, 2 * width, 4 * width, n, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        self.apply(he_initialise)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))               # (B, width, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))      # (B, 4 width, H/4, W/4)
        return self.fc(self.avgpool(x).flatten(1))
