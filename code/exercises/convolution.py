# %% [markdown]
# # Convolution and pooling from scratch
#
# **Goal**: afterwards you can compute the size of any convolution's output, write
# convolution and pooling as sliding windows and one product, and say which part of a
# picture a unit sees.
#
# **Time**: 60 to 90 minutes. **Points**: 18, of which a human gives 2.
#
# **How**: replace every `raise NotImplementedError()` by your solution. Run the check
# below it, or `python convolution.py` for all of them: they tell you what to look at.
# The checks that you see are a part of those that grade your work. Keep the cells and
# the names of the functions as they are; add cells where you like.
#
# **Hand in**: this file, as `.py` or as `.ipynb`.

# %% nbgrader={"grade_id": "setup", "locked": true}
import torch
from torch import nn
from torch.nn import functional as F

from lab import checks

checks.begin(__name__)

# %% [markdown]
# ## 1. How large is the output? (2 points)
#
# A kernel of `kernel` pixels slides over `size` pixels with `padding` zeros on either
# side, `stride` pixels at a time. With `dilation` d its taps are d pixels apart.

# %% nbgrader={"grade_id": "output_size", "solution": true}
def output_size(size, kernel, stride=1, padding=0, dilation=1):
    """How many positions the kernel has along one axis; all are whole numbers."""
    ### BEGIN SOLUTION
    reach = dilation * (kernel - 1) + 1
    return (size + 2 * padding - reach) // stride + 1
    ### END SOLUTION


# %% nbgrader={"grade_id": "output_size-checks", "points": 2}
def torch_output_size(size, kernel, stride=1, padding=0, dilation=1):
    convolution = nn.Conv1d(1, 1, kernel, stride, padding, dilation)
    return convolution(torch.zeros(1, 1, size)).shape[-1]


checks.equal(output_size, torch_output_size, 32, 5)
checks.equal(output_size, torch_output_size, 32, 3, 1, 1)
checks.equal(output_size, torch_output_size, 224, 7, 2, 3)
### BEGIN HIDDEN TESTS
for case in [(9, 2, 2), (10, 3, 3, 1), (31, 3, 2, 2, 2), (28, 5, 1, 0, 3), (7, 7)]:
    checks.equal(output_size, torch_output_size, *case)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Sliding windows (2 points)
#
# Convolution and pooling look through the same windows. All windows along one axis
# are `Tensor.unfold(dimension, size, step)`, a view; use it for both axes.

# %% nbgrader={"grade_id": "windows", "solution": true}
def windows(x, kernel, stride=1):
    """All kernel x kernel windows of x (B, C, H, W).

    Returns (B, C, H', W', kernel, kernel), with H' and W' positions along each axis.
    """
    ### BEGIN SOLUTION
    return x.unfold(2, kernel, stride).unfold(3, kernel, stride)
    ### END SOLUTION


# %% nbgrader={"grade_id": "windows-checks", "points": 2}
picture = torch.arange(16.0).reshape(1, 1, 4, 4)
checks.shape(windows, picture, 3, expected=(1, 1, 2, 2, 3, 3))
checks.equal(lambda x: windows(x, 2, 2)[0, 0, 1, 0].contiguous(),
             lambda x: x[0, 0, 2:4, 0:2], picture)
### BEGIN HIDDEN TESTS
tall = torch.randn(2, 3, 9, 6)
checks.shape(windows, tall, 3, 2, expected=(2, 3, 4, 2, 3, 3))
for i, j in [(0, 0), (3, 1), (2, 0)]:
    checks.equal(lambda x: windows(x, 3, 2)[:, :, i, j].contiguous(),
                 lambda x: x[:, :, 2 * i:2 * i + 3, 2 * j:2 * j + 3], tall)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Convolution (4 points)
#
# Every output is the sum, over all input channels and the whole window, of window times
# kernel, plus the bias of its output channel. Write the sum as one `torch.einsum`, or
# as one matrix product. Torch's own convolutions and `F.unfold` are not allowed.

# %% nbgrader={"grade_id": "conv2d", "solution": true}
def conv2d(x, weight, bias=None, stride=1, padding=0):
    """What F.conv2d gives.

    x (B, C, H, W), weight (O, C, K, K), bias (O) or None -> (B, O, H', W').
    """
    ### BEGIN SOLUTION
    x = F.pad(x, [padding] * 4)
    y = torch.einsum("bchwij,ocij->bohw", windows(x, weight.shape[-1], stride), weight)
    return y if bias is None else y + bias[:, None, None]
    ### END SOLUTION


# %% nbgrader={"grade_id": "conv2d-checks", "points": 4}
own_conv2d = checks.without(conv2d, "conv", "im2col")
torch.manual_seed(0)
x, weight, bias = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.randn(4)
checks.shape(own_conv2d, x, weight, expected=(2, 4, 6, 6))
checks.equal(own_conv2d, F.conv2d, x, weight)
checks.equal(own_conv2d, F.conv2d, x, weight, bias, 2, 1)
### BEGIN HIDDEN TESTS
wide = torch.randn(3, 2, 7, 11, requires_grad=True)
taps = torch.randn(5, 2, 5, 5, requires_grad=True)
offset = torch.randn(5, requires_grad=True)
for stride, padding in [(1, 0), (1, 2), (3, 1), (2, 4)]:
    checks.equal(own_conv2d, F.conv2d, wide, taps, offset, stride, padding)
checks.gradient(own_conv2d, torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3))
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Max pooling (2 points)
#
# The largest value of each window. What is padded must never win: which value does
# that, when a whole window is negative?

# %% nbgrader={"grade_id": "max_pool2d", "solution": true}
def max_pool2d(x, kernel, stride=None, padding=0):
    """What F.max_pool2d gives; without a stride, windows do not overlap."""
    ### BEGIN SOLUTION
    x = F.pad(x, [padding] * 4, value=float("-inf"))
    return windows(x, kernel, stride or kernel).amax(dim=(-2, -1))
    ### END SOLUTION


# %% nbgrader={"grade_id": "max_pool2d-checks", "points": 2}
own_max_pool2d = checks.without(max_pool2d, "pool", "im2col")
torch.manual_seed(1)
checks.equal(own_max_pool2d, F.max_pool2d, torch.randn(2, 3, 8, 8), 2)
checks.equal(own_max_pool2d, F.max_pool2d, torch.randn(2, 3, 9, 9), 3, 2)
### BEGIN HIDDEN TESTS
checks.equal(own_max_pool2d, F.max_pool2d, -torch.rand(1, 2, 7, 7) - 1, 3, 2, 1)
checks.equal(own_max_pool2d, F.max_pool2d, torch.randn(1, 1, 5, 8), 3)
checks.equal(own_max_pool2d, F.max_pool2d, torch.randn(2, 2, 6, 6, requires_grad=True),
             3, 1, 1)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. A layer and a network (4 points)
#
# `Conv2d` holds `weight` and `bias` as parameters and uses your `conv2d`. Draw both
# uniformly from ±1/√(C·K²), C input channels and a K×K kernel.
#
# `Network` classifies grey 16×16 pictures into 10 classes: `Conv2d` to 8 channels, 3×3,
# padding 1; ReLU; your max pooling by 2; `Conv2d` to 16 channels, 3×3, padding 1; ReLU;
# max pooling by 2; one `nn.Linear`.

# %% nbgrader={"grade_id": "layers", "solution": true}
class Conv2d(nn.Module):
    """A square convolution; state_dict as of nn.Conv2d."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0):
        super().__init__()
        ### BEGIN SOLUTION
        self.stride, self.padding = stride, padding
        bound = (in_channels * kernel_size ** 2) ** -0.5
        taps = torch.empty(out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(taps.uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return conv2d(x, self.weight, self.bias, self.stride, self.padding)
        ### END SOLUTION


class Network(nn.Module):
    """Pictures (B, 1, 16, 16) -> logits (B, 10)."""

    def __init__(self):
        super().__init__()
        ### BEGIN SOLUTION
        self.conv1 = Conv2d(1, 8, 3, padding=1)
        self.conv2 = Conv2d(8, 16, 3, padding=1)
        self.classifier = nn.Linear(16 * 4 * 4, 10)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        x = max_pool2d(self.conv1(x).relu(), 2)
        x = max_pool2d(self.conv2(x).relu(), 2)
        return self.classifier(x.flatten(1))
        ### END SOLUTION


# %% nbgrader={"grade_id": "layers-checks", "points": 4}
network = checks.call(Network)
pictures = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(2))
checks.parameters(network, 3818)
checks.shape(network, pictures, expected=(16, 10))
checks.overfits(network, pictures, torch.arange(16) % 10)
### BEGIN HIDDEN TESTS
checks.reproducible(lambda: Conv2d(3, 4, 3)(torch.ones(1, 3, 5, 5)))
own, reference = checks.call(Conv2d, 3, 6, 5, 2, 2), nn.Conv2d(3, 6, 5, 2, 2)
checks.call(own.load_state_dict, reference.state_dict())
checks.equal(checks.without(own, "conv", "im2col"), reference, torch.randn(2, 3, 9, 9))
limit = 1 / (64 * 9) ** 0.5
drawn = checks.call(Conv2d, 64, 64, 3).weight.detach()
if not 0.98 * limit < drawn.abs().max() <= limit:
    raise checks.Hint("the weights of Conv2d are not drawn from ±1/√(C·K²).")
if abs(drawn.std() - limit / 3 ** 0.5) > 0.02 * limit:
    raise checks.Hint("the weights of Conv2d are not drawn uniformly.")
checks.eval_mode(network, pictures)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. What a unit sees (2 points)
#
# The receptive field of a unit is the square of input pixels that can change it. Go
# through the layers from the input: each widens the field by `kernel - 1` steps of the
# size that the strides before it have reached.

# %% nbgrader={"grade_id": "receptive_field", "solution": true}
def receptive_field(layers):
    """Side, in input pixels, of what a unit of the last layer sees.

    layers: (kernel, stride) of each layer from the input on.
    """
    ### BEGIN SOLUTION
    side = step = 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step *= stride
    return side
    ### END SOLUTION


# %% nbgrader={"grade_id": "receptive_field-checks", "points": 2}
checks.equal(receptive_field, lambda layers: 3, [(3, 1)])
checks.equal(receptive_field, lambda layers: 7, [(3, 1)] * 3)
### BEGIN HIDDEN TESTS
def measured(layers):
    """By what the gradient of the middle unit reaches."""
    x = torch.zeros(1, 1, 301, requires_grad=True)
    y = x
    for kernel, stride in layers:
        y = F.conv1d(y, torch.ones(1, 1, kernel), stride=stride)
    y[0, 0, y.shape[-1] // 2].backward()
    return int((x.grad != 0).sum())


for layers in [[(7, 2), (3, 2), (3, 1)], [(5, 1), (2, 2), (5, 1), (2, 2)], []]:
    checks.equal(receptive_field, measured, layers)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. In your own words (2 points, by a human)
#
# Three 3×3 convolutions in a row see as much as one 7×7. In two or three sentences:
# what else do the three have, and what do they cost, with C channels throughout? Give
# the numbers of weights.

# %% [markdown] nbgrader={"grade_id": "three_by_three", "solution": true, "points": 2}
# Three 3×3 have 27 C² weights, one 7×7 has 49 C², so the three are cheaper by almost
# half; and there are three nonlinearities instead of one, so the function is richer.
# They cost more memory, for backward needs the activations between them.
