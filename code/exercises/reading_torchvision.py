# %% [markdown]
# # Reading torchvision: MobileNetV2
#
# **Goal**: afterwards you can read a model in a library's source, tell from it what the
# paper leaves out, and rebuild it so that the library's weights give the same outputs.
#
# **Time**: 60 to 90 minutes. **Points**: 18, of which a human gives 3.
#
# **How**: read `torchvision/models/mobilenetv2.py` and, of `torchvision/ops/misc.py`,
# what it uses (`inspect.getsourcefile` says where they are on your machine). Then
# replace every `raise NotImplementedError()` by your solution, in your own lines; your
# model may not build on torchvision. Run the check below it, or
# `python reading_torchvision.py` for all of them: they tell you what to look at. The
# checks that you see are a part of those that grade your work. Keep the cells and the
# names as they are.
#
# **Hand in**: this file, as `.py` or as `.ipynb`.
#
# Paper: Mark Sandler et al. *MobileNetV2: Inverted Residuals and Linear Bottlenecks*.
# CVPR 2018. [arXiv:1801.04381](https://arxiv.org/abs/1801.04381)

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch
from torch import nn

from lab import checks

checks.begin(__name__)

# %% [markdown]
# ## 1. Channels (2 points)
#
# Widths are multiplied by a factor and then rounded by `_make_divisible`. Read it, and
# write what it does for the divisor 8.

# %% nbgrader={"grade_id": "rounded", "solution": true}
def rounded(width):
    """The multiple of 8 that torchvision takes for this width, a float above 0."""
    ### BEGIN SOLUTION
    channels = max(8, int(width + 4) // 8 * 8)
    return channels + 8 if channels < 0.9 * width else channels
    ### END SOLUTION


# %% nbgrader={"grade_id": "rounded-checks", "points": 2}
from torchvision.models import _utils, mobilenet_v2, mobilenetv2

checks.equal(rounded, lambda width: 24, 24 * 1.0)
checks.equal(rounded, lambda width: 8, 3.0)
### BEGIN HIDDEN TESTS
for tenth in range(1, 700, 7):
    checks.equal(rounded, lambda width: _utils._make_divisible(width, 8), tenth / 10)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Convolution, norm, activation (3 points)
#
# An `nn.Sequential` of three layers. What is its padding, does the convolution have a
# bias, and which activation is it?

# %% nbgrader={"grade_id": "conv_norm", "solution": true}
def conv_norm(in_channels, out_channels, kernel, stride=1, groups=1):
    """Convolution, BatchNorm, activation; without a stride H and W stay."""
    ### BEGIN SOLUTION
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2,
                  groups=groups, bias=False),
        nn.BatchNorm2d(out_channels), nn.ReLU6(inplace=True))
    ### END SOLUTION


# %% nbgrader={"grade_id": "conv_norm-checks", "points": 3}
torch.manual_seed(0)
x = torch.randn(2, 6, 9, 9)
layer = checks.call(conv_norm, 6, 12, 3)
checks.shape(layer, x, expected=(2, 12, 9, 9))
checks.parameters(layer, 672)
### BEGIN HIDDEN TESTS
from torchvision.ops import Conv2dNormActivation

for out, kernel, stride, groups in [(12, 3, 2, 1), (12, 1, 1, 1), (6, 3, 1, 6),
                                    (6, 5, 2, 3)]:
    own = checks.call(conv_norm, 6, out, kernel, stride, groups)
    reference = Conv2dNormActivation(6, out, kernel, stride, groups=groups,
                                     activation_layer=nn.ReLU6)
    checks.call(own.load_state_dict, reference.state_dict())
    checks.equal(own, reference, (9 * x).requires_grad_(), tolerance=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The inverted residual (4 points)
#
# In which cases is the input added? What has no activation? What is left out if the
# expansion is 1? Keep the layers in `self.conv`, an `nn.Sequential` laid out as
# torchvision's, so that its weights fit.

# %% nbgrader={"grade_id": "inverted", "solution": true}
class InvertedResidual(nn.Module):
    """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""

    def __init__(self, in_channels, out_channels, stride, expansion):
        super().__init__()
        ### BEGIN SOLUTION
        hidden = in_channels * expansion
        widen = [conv_norm(in_channels, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *widen, conv_norm(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels))
        self.adds = stride == 1 and in_channels == out_channels
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return x + self.conv(x) if self.adds else self.conv(x)
        ### END SOLUTION


# %% nbgrader={"grade_id": "inverted-checks", "points": 4}
block = checks.call(InvertedResidual, 6, 6, 1, 4)
checks.shape(block, x, expected=(2, 6, 9, 9))
checks.parameters(block, 612)
checks.eval_mode(block, x)
### BEGIN HIDDEN TESTS
for sizes in [(6, 6, 1, 6), (6, 6, 2, 6), (6, 10, 1, 2), (6, 6, 1, 1), (6, 4, 2, 1)]:
    own = checks.call(InvertedResidual, *sizes)
    reference = mobilenetv2.InvertedResidual(*sizes)
    checks.call(own.load_state_dict, reference.state_dict())
    for mode in [True, False]:
        checks.equal(own.train(mode), reference.train(mode),
                     x.clone().requires_grad_(), tolerance=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The model (4 points)
#
# Stem, the seven rows of the paper's table 2, the last convolution, the classifier: all
# that `mobilenet_v2` gives with its defaults. `rows` below is the table; which of its
# numbers are rounded, and how is a row with n > 1 built?

# %% nbgrader={"grade_id": "model", "solution": true}
rows = [  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
    (6, 160, 3, 2), (6, 320, 1, 1)]


class MobileNetV2(nn.Module):
    """Pictures (B, 3, H, W) -> logits (B, num_classes); width multiplies channels."""

    def __init__(self, num_classes=1000, width=1.0):
        super().__init__()
        ### BEGIN SOLUTION
        channels = rounded(32 * width)
        features = [conv_norm(3, channels, 3, 2)]
        for expansion, out, blocks, stride in rows:
            for number in range(blocks):
                features.append(InvertedResidual(
                    channels, rounded(out * width), 1 if number else stride, expansion))
                channels = rounded(out * width)
        last = rounded(1280 * max(1.0, width))
        self.features = nn.Sequential(*features, conv_norm(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return self.classifier(self.features(x).mean(dim=(2, 3)))
        ### END SOLUTION


# %% nbgrader={"grade_id": "model-checks", "points": 4}
pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
model = checks.call(MobileNetV2)
checks.parameters(model, 3504872)
checks.shape(model, pictures, expected=(2, 1000))
### BEGIN HIDDEN TESTS
for options in [{}, {"num_classes": 7, "width_mult": 0.35}, {"width_mult": 1.4}]:
    own = checks.call(MobileNetV2, options.get("num_classes", 1000),
                      options.get("width_mult", 1.0))
    reference = mobilenet_v2(**options)
    checks.call(own.load_state_dict, reference.state_dict())
    checks.equal(own.eval(), reference.eval(), pictures, tolerance=1e-4)
checks.eval_mode(model, pictures)
if any("torchvision" in type(part).__module__ for part in model.modules()):
    raise checks.Hint("MobileNetV2 is built of torchvision's own parts.")
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Where the parameters are (2 points)

# %% nbgrader={"grade_id": "share", "solution": true}
def shares(model):
    """What part of the parameters is in which convolutions: (depthwise, pointwise).

    Two floats: of all of the model's parameters those in convolutions with as many
    groups as input channels (more than one), and those in 1×1 convolutions.
    """
    ### BEGIN SOLUTION
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    total = sum(value.numel() for value in model.parameters())
    depthwise = sum(layer.weight.numel() for layer in layers
                    if layer.groups == layer.in_channels > 1)
    pointwise = sum(layer.weight.numel() for layer in layers
                    if layer.kernel_size == (1, 1))
    return depthwise / total, pointwise / total
    ### END SOLUTION


# %% nbgrader={"grade_id": "share-checks", "points": 2}
print("depthwise {:.1%}, pointwise {:.1%}".format(*checks.call(shares, model)))
checks.equal(shares, lambda model: (0.0, 1.0), nn.Conv2d(4, 8, 1, bias=False))
### BEGIN HIDDEN TESTS
checks.equal(lambda model: tuple(round(part, 4) for part in shares(model)),
             lambda model: (0.0183, 0.6062), mobilenet_v2())
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Explain it (3 points, by a human)
#
# Name three things that you found in the source and not in the paper (or otherwise than
# there), each with the line that says so. Then say in two sentences why the last layer
# of a block has no activation, and why blocks are wide inside and narrow outside.

# %% [markdown] nbgrader={"grade_id": "words", "solution": true, "points": 3}
# For example: channels are rounded to multiples of 8, but never down by more than a
# tenth (`_make_divisible`); the last convolution keeps its 1280 channels when the width
# is below one (`max(1.0, width_mult)`); a dropout of 0.2 stands before the classifier;
# weights are drawn by Kaiming's rule with fan_out; the average is over all positions
# (`adaptive_avg_pool2d`), so that any picture size works.
# A ReLU on few channels would lose what it sets to zero, with nothing left to bring it
# back, so the narrow end is linear. Depthwise filters are cheap, so they can work in
# the wide space, while what is stored and added from block to block stays small.
