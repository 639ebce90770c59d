# %% [markdown]
# # A residual block, and why it helps
#
# **Goal**: afterwards you can write ResNet's block so that published weights fit into
# it, build plain and residual networks of any depth, and show by their gradients why
# the shortcut helps.
#
# **Time**: 60 to 90 minutes. **Points**: 17, of which a human gives 2.
#
# **How**: replace every `raise NotImplementedError()` by your solution. Run the check
# below it, or `python residual.py` for all of them: they tell you what to look at. The
# checks that you see are a part of those that grade your work. Keep the cells and the
# names as they are; add cells where you like.
#
# **Hand in**: this file, as `.py` or as `.ipynb`.
#
# Paper: Kaiming He et al. *Deep Residual Learning for Image Recognition*. CVPR 2016.
# [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch
from torch import nn
from torch.nn import functional as F

from lab import checks

checks.begin(__name__)

# %% [markdown]
# ## 1. The block (4 points)
#
# Two 3×3 convolutions with padding 1 and without bias, each followed by BatchNorm; the
# input is added before the last ReLU:
#
# conv1, bn1, ReLU, conv2, bn2, add the shortcut, ReLU
#
# Only `conv1` has the stride. Names as in torchvision (`conv1`, `bn1`, `conv2`, `bn2`,
# `downsample`), so that its weights fit. `residual=False` leaves the addition out: a
# plain block, the control for what follows.

# %% nbgrader={"grade_id": "block", "solution": true}
class BasicBlock(nn.Module):
    """(B, C, H, W) -> (B, out_channels, H / stride, W / stride)."""

    def __init__(self, in_channels, out_channels, stride=1, residual=True):
        super().__init__()
        self.residual = residual
        self.downsample = None
        if residual:
            self.downsample = shortcut(in_channels, out_channels, stride)
        ### BEGIN SOLUTION
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return y.relu()
        ### END SOLUTION


# %% [markdown]
# ## 2. The shortcut (3 points)
#
# Where input and output have the same shape the shortcut is the input itself: return
# `None`. Elsewhere it is a 1×1 convolution with the stride, without bias, and a
# BatchNorm after it, as an `nn.Sequential`.

# %% nbgrader={"grade_id": "shortcut", "solution": true}
def shortcut(in_channels, out_channels, stride):
    """What brings x to the shape of the block's output; None if nothing has to."""
    ### BEGIN SOLUTION
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                         nn.BatchNorm2d(out_channels))
    ### END SOLUTION


# %% nbgrader={"grade_id": "shortcut-checks", "points": 3}
checks.equal(shortcut, lambda *sizes: None, 16, 16, 1)
projection = checks.call(shortcut, 16, 32, 2)
x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
checks.shape(projection, x, expected=(2, 32, 4, 4))
checks.parameters(projection, 16 * 32 + 2 * 32)
### BEGIN HIDDEN TESTS
for sizes in [(16, 16, 2), (8, 24, 1)]:
    found = checks.call(shortcut, *sizes)
    checks.shape(found, torch.zeros(1, sizes[0], 9, 9),
                 expected=(1, sizes[1], 9 if sizes[2] == 1 else 5,
                           9 if sizes[2] == 1 else 5))
    checks.parameters(found, sizes[0] * sizes[1] + 2 * sizes[1])
    if [type(layer) for layer in found] != [nn.Conv2d, nn.BatchNorm2d]:
        raise checks.Hint("shortcut is not a convolution followed by a BatchNorm2d.")
### END HIDDEN TESTS

# %% nbgrader={"grade_id": "block-checks", "points": 4}
block = checks.call(BasicBlock, 16, 16)
checks.parameters(block, 4672)
checks.shape(block, x, expected=(2, 16, 8, 8))
checks.shape(checks.call(BasicBlock, 16, 32, 2), x, expected=(2, 32, 4, 4))
checks.eval_mode(block, x)
### BEGIN HIDDEN TESTS
from torchvision.models.resnet import BasicBlock as Reference

torch.manual_seed(1)
for sizes in [(16, 16, 1), (16, 24, 2), (16, 16, 2)]:
    own = checks.call(BasicBlock, *sizes)
    downsample = None if sizes == (16, 16, 1) else nn.Sequential(
        nn.Conv2d(sizes[0], sizes[1], 1, sizes[2], bias=False),
        nn.BatchNorm2d(sizes[1]))
    reference = Reference(*sizes, downsample)
    for name, value in reference.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if "running_var" in name else value.normal_()
    checks.call(own.load_state_dict, reference.state_dict())
    for mode in [False, True]:
        checks.equal(own.train(mode), reference.train(mode),
                     torch.randn(3, 16, 8, 8, requires_grad=True), tolerance=1e-4)
plain = checks.call(BasicBlock, 16, 16, 1, False)
with torch.no_grad():
    plain.bn2.weight.zero_()
checks.equal(plain.eval(), lambda x: torch.zeros_like(x), x)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. A network of any depth (4 points)
#
# The paper's networks for CIFAR-10 (section 4.2): a 3×3 convolution to 16 channels with
# BatchNorm and ReLU (`conv1`, `bn1`); three stages of n blocks with 16, 32 and 64
# channels (`layer1` to `layer3`, each an `nn.Sequential`), the first block of the
# second and third stage with stride 2; the average over all positions; a linear layer
# (`fc`).
# That makes 6n + 2 layers.

# %% nbgrader={"grade_id": "network", "solution": true}
class ResNet(nn.Module):
    """Pictures (B, 3, H, W) -> logits (B, num_classes)."""

    def __init__(self, n, residual=True, num_classes=10):
        super().__init__()
        ### BEGIN SOLUTION
        def stage(in_channels, out_channels, stride):
            first = BasicBlock(in_channels, out_channels, stride, residual)
            return nn.Sequential(first, *(
                BasicBlock(out_channels, out_channels, 1, residual)
                for _ in range(n - 1)))

        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.fc = nn.Linear(64, num_classes)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))
        ### END SOLUTION


# %% nbgrader={"grade_id": "network-checks", "points": 4}
network = checks.call(ResNet, 1)
pictures = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))
checks.shape(network, pictures, expected=(8, 10))
checks.parameters(network, 78042)
checks.overfits(network, pictures, torch.arange(8), steps=60)
### BEGIN HIDDEN TESTS
checks.parameters(checks.call(ResNet, 3), 272474)
checks.parameters(checks.call(ResNet, 3, False), 269722)
checks.parameters(checks.call(ResNet, 2, True, 7), 175063)
deep = checks.call(ResNet, 3)
if [len(stage) for stage in (deep.layer1, deep.layer2, deep.layer3)] != [3, 3, 3]:
    raise checks.Hint("the stages of ResNet(3) do not have three blocks each.")
checks.shape(deep.layer3, torch.zeros(1, 32, 8, 8), expected=(1, 64, 4, 4))
checks.eval_mode(deep, pictures)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Start as the identity (2 points)
#
# With the weight (γ) of the last BatchNorm at zero a residual block does nothing but
# pass its input on, and a deep network starts as a shallow one.

# %% nbgrader={"grade_id": "zero", "solution": true}
def start_as_identity(network):
    """Set the weight of the last BatchNorm of every BasicBlock in network to zero."""
    ### BEGIN SOLUTION
    for part in network.modules():
        if isinstance(part, BasicBlock):
            nn.init.zeros_(part.bn2.weight)
    ### END SOLUTION


# %% nbgrader={"grade_id": "zero-checks", "points": 2}
block = checks.call(BasicBlock, 16, 16)
checks.call(start_as_identity, block)
checks.equal(block, F.relu, x)
### BEGIN HIDDEN TESTS
deep = checks.call(ResNet, 3)
before = {name: value.clone() for name, value in deep.state_dict().items()}
checks.call(start_as_identity, deep)
for name, value in deep.state_dict().items():
    zero = "layer" in name and name.endswith("bn2.weight")
    if not torch.equal(value, torch.zeros_like(value) if zero else before[name]):
        raise checks.Hint(f"after start_as_identity {name} is not what it should be.")
if not all(value.requires_grad for value in deep.parameters()):
    raise checks.Hint("start_as_identity leaves parameters that cannot learn.")
### END HIDDEN TESTS

# %% [markdown]
# ## 5. What reaches the first layer (2 points)
#
# Return how strongly the loss pulls at the first convolution: the norm of the gradient
# of `conv1.weight` for one batch, as a float, in train mode. Then look at the numbers
# that the check prints, for plain and residual networks of 8, 20 and 56 layers.

# %% nbgrader={"grade_id": "pull", "solution": true}
def first_gradient(network, x, labels):
    """Norm of the cross-entropy's gradient for network.conv1.weight."""
    ### BEGIN SOLUTION
    network.train().zero_grad()
    F.cross_entropy(network(x), labels).backward()
    return network.conv1.weight.grad.norm().item()
    ### END SOLUTION


# %% nbgrader={"grade_id": "pull-checks", "points": 2}
labels = torch.arange(8)
for n in [1, 3, 9]:
    norms = []
    for residual in [False, True]:
        torch.manual_seed(3)
        norms.append(checks.call(first_gradient, ResNet(n, residual), pictures, labels))
    print(f"{6 * n + 2:2} layers: plain {norms[0]:.3f}, residual {norms[1]:.3f}")
### BEGIN HIDDEN TESTS
def measured(network, x, labels):
    network.train()
    return torch.autograd.grad(F.cross_entropy(network(x), labels),
                               network.conv1.weight)[0].norm().item()


network = ResNet(2)
for _ in range(2):   # a gradient must not be added to the one before
    found = checks.call(first_gradient, network, pictures, labels)
    expected = measured(network, pictures, labels)
    if not isinstance(found, float) or abs(found - expected) > 1e-3 * expected:
        raise checks.Hint(f"first_gradient returns {found} instead of {expected}.")
### END HIDDEN TESTS

# %% [markdown]
# ## 6. In your own words (2 points, by a human)
#
# What do the numbers of part 5 show, and how does the shortcut bring it about? Write
# the derivative of y = x + F(x) and use it. Three or four sentences. Does a large
# gradient at the start prove that a network will train well?

# %% [markdown] nbgrader={"grade_id": "words", "solution": true, "points": 2}
# With the shortcut dy/dx = 1 + F'(x): the product over all blocks contains the term 1,
# a path on which the gradient arrives as it is, and many short ones. In a plain network
# it is the one product of all F', which with BatchNorm grows with depth: hundreds of
# times larger at 56 layers, so that no learning rate suits first and last layer.
# A large gradient proves nothing: what counts is that it is of like size everywhere,
# and whether training error falls has to be seen by training.
