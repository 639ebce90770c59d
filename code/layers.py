# %% [markdown]
# # Building blocks
#
# - **Paper**: Vincent Dumoulin, Francesco Visin. *A guide to convolution arithmetic
#   for deep learning*. arXiv 2016.
#   [arXiv:1603.07285](https://arxiv.org/abs/1603.07285)
# - **Paper**: Wenjie Luo, Yujia Li, Raquel Urtasun, Richard Zemel. *Understanding
#   the Effective Receptive Field in Deep Convolutional Neural Networks*. NIPS 2016.
#   [arXiv:1701.04128](https://arxiv.org/abs/1701.04128)
# - **Paper**: Vinod Nair, Geoffrey E. Hinton. *Rectified Linear Units Improve
#   Restricted Boltzmann Machines*. ICML 2010.
#   [PDF](https://www.cs.toronto.edu/~fritz/absps/reluICML.pdf)
# - **Paper**: Xavier Glorot, Yoshua Bengio. *Understanding the Difficulty of Training
#   Deep Feedforward Neural Networks*. AISTATS 2010. [PMLR
#   9](https://proceedings.mlr.press/v9/glorot10a.html)
# - **Paper**: Xavier Glorot, Antoine Bordes, Yoshua Bengio. *Deep Sparse Rectifier
#   Neural Networks*. AISTATS 2011. [PMLR
#   15](https://proceedings.mlr.press/v15/glorot11a.html)
# - **Idea**: a network is a chain of small functions, each a few lines long and
#   each differentiable; torch's own give the same values and gradients.
# - **Demo**: one figure for each block, most with what happens without it;
#   where a claim does not show at this size, the figure says so.
# - **Time**: about 10 s on 2 CPU cores

# %%
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum
from torch import nn

from lab import cli, data, figures, measure, results


# %% Fully connected
def linear(x, weight, bias):
    """W x + b: each output has a weight for each input.

    x (B, D), weight (D', D), bias (D',). Returns (B, D').
    """
    return x @ weight.T + bias


# %% Windows
def output_size(size, kernel, stride=1, padding=0):
    """How often a window fits into size pixels."""
    return (size + 2 * padding - kernel) // stride + 1


def windows(x, kernel, stride=1, padding=0, fill=0.0):
    """(B, C, H, W) -> (B, C, H', W', kernel, kernel)."""
    x = F.pad(x, 4 * [padding], value=fill)
    rows = x.unfold(2, kernel, stride)
    return rows.unfold(3, kernel, stride)


# %% Convolution
def conv2d(x, weight, bias=None, stride=1, padding=0):
    """The same weights for every window of x.

    x (B, C, H, W), weight (O, C, k, k), bias (O,).
    Returns (B, O, H', W').
    """
    patches = windows(x, weight.shape[-1], stride, padding)
    y = einsum(patches, weight,
               "b c h w i j, o c i j -> b o h w")
    return y if bias is None else y + bias[:, None, None]


# %% Pooling
def max_pool2d(x, kernel, stride=None, padding=0):
    """The largest value of each window; no weights.

    (B, C, H, W) -> (B, C, H', W'); stride: else kernel.
    """
    patches = windows(x, kernel, stride or kernel, padding,
                      fill=-torch.inf)
    return patches.amax((-2, -1))


# %% Receptive field
def receptive_field(layers):
    """Input pixels, along a side, that an output sees.

    layers: (kernel, stride) of each, from the input on.
    """
    size, jump = 1, 1  # jump: pixels between neighbours
    for kernel, stride in layers:
        size += (kernel - 1) * jump
        jump *= stride
    return size


# %% Activations
def sigmoid(x):
    """1 / (1 + exp(-x)), in (0, 1); exp cannot overflow."""
    return torch.exp(-F.softplus(-x))


def sigmoid_gradient(x):
    """At most 1/4, at 0."""
    return sigmoid(x) * (1 - sigmoid(x))


def relu(x):
    """Nair and Hinton 2010: max(0, x)."""
    return x.clamp(min=0)


def relu_gradient(x):
    """1 where the unit is on, else 0."""
    return (x > 0).to(x.dtype)


# %% Softmax
def softmax(logits):
    """exp(z_k) / sum_j exp(z_j), (B, K) -> (B, K).

    The largest logit is taken off first: the result is
    the same, and exp cannot overflow.
    """
    shifted = logits - logits.amax(-1, keepdim=True)
    weights = shifted.exp()
    return weights / weights.sum(-1, keepdim=True)


# %% Cross-entropy
def cross_entropy(logits, target):
    """-log p(target), averaged over the batch.

    logits (B, K), target (B,) with class numbers. Never
    takes the log of a probability: that may be log(0).
    """
    shifted = logits - logits.amax(-1, keepdim=True)
    total = shifted.exp().sum(-1, keepdim=True)  # (B, 1)
    log_p = shifted - total.log()                # (B, K)
    return -log_p.gather(-1, target[:, None]).mean()


# %% Facts
def facts():
    """LeNet's first layer, 28x28 grey to 6 maps of 28x28, both ways."""
    conv = nn.Conv2d(1, 6, 5, padding=2)
    full = nn.Linear(28 * 28, 6 * 28 * 28, device="meta")
    return {
        "conv_parameters": measure.parameters(conv),
        "full_parameters": measure.parameters(full),
        "conv_multiply_adds": measure.multiply_adds(conv, (1, 1, 28, 28)),
        "full_multiply_adds": measure.multiply_adds(full, (1, 28 * 28)),
        "field_of_ten": receptive_field(10 * [(3, 1)]),
        "field_of_ten_with_strides": receptive_field(5 * [(3, 1), (3, 2)]),
    }


# %% Settings
@dataclass(frozen=True)
class Settings(cli.Settings):
    runs: int = 3


SETTINGS = {"digits": Settings()}


# %% Tolerance of shifts
def shift_test(known, test, pool, seed):
    """Pooled random edge features of digits moved by 0 to 4 pixels.

    Returns how far they move, and the share of digits that are misclassified.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 1, 3, 3, generator=generator)
    weight = weight - weight.mean((2, 3), keepdim=True)

    def features(images, shift):
        x = F.pad(images - images.min(), (5 + shift, 5 - shift, 5, 5))
        return pool(relu(conv2d(x, weight))).flatten(1)

    (images, labels), (seen, classes) = test.tensors, known.tensors
    seen, still = features(seen, 0), features(images, 0)
    moved = [features(images, shift) for shift in range(5)]
    guesses = [classes[torch.cdist(x, seen).argmin(1)] for x in moved]
    changes = [(x - still).norm() / still.norm() for x in moved]
    wrong = [(guess != labels).float().mean() for guess in guesses]
    return torch.tensor([changes, wrong])


# %% Gradients
def gradient_map(layers, size, samples=1, width=8):
    """How strongly each input pixel moves one output of a random network.

    layers: (kernel, stride) of each, ReLU after it. Returns (size, size),
    the mean over random images.
    """
    x = images = torch.randn(samples, 1, size, size, requires_grad=True)
    for kernel, stride in layers:
        weight = torch.empty(width, x.shape[1], kernel, kernel)
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
        x = relu(F.conv2d(x, weight, stride=stride, padding=kernel // 2))
    x[:, :, x.shape[2] // 2, x.shape[3] // 2].sum().backward()
    return images.grad.abs().mean((0, 1))


# %% Random networks
def random_layers(gain, seed, depth=20, width=100):
    """Weights (width, width) of standard deviation gain / sqrt(width), and inputs."""
    torch.manual_seed(seed)
    scale = gain / width ** 0.5
    weights = [nn.Parameter(scale * torch.randn(width, width))
               for _ in range(depth)]
    return weights, torch.randn(64, width)


def gradient_sizes(activation, gain, seed):
    """Norm of the gradient of each layer's weights in a random network."""
    weights, x = random_layers(gain, seed)
    for weight in weights:
        x = activation(linear(x, weight, 0))
    logits = linear(x, torch.randn(10, x.shape[1]), 0)
    cross_entropy(logits, torch.randint(10, (64,))).backward()
    return [weight.grad.norm().item() for weight in weights]


@torch.no_grad()
def activation_inputs(activation, gain, seed):
    """What each layer of a random network passes to its activation, (L, B, D)."""
    weights, x = random_layers(gain, seed)
    inputs = []
    for weight in weights:
        inputs.append(linear(x, weight, 0))
        x = activation(inputs[-1])
    return torch.stack(inputs)


# %% Drawing: a convolution
def draw_input(axis, digit, row, column, output):
    """The digit, the window around (row, column) and what comes of it."""
    axis.text(2, 24, "input", weight="bold")
    figures.cells(axis, digit, 2, 44, 23, above="ink")
    figures.frame(axis, 23 * column - 21, 21 + 23 * row, 69, 69, "idea", 4)
    axis.text(2, 448, "The framed pixels times the first\n"
              f"kernel sum to {output:.1f}, one output.", va="top",
              linespacing=1.4)


def draw_convolution(digit, kernels, maps):
    """The digit, and under each kernel what it makes of it."""
    figure, axis = figures.sheet()
    row, column = divmod(maps[0].argmax().item(), maps.shape[-1])
    draw_input(axis, digit, row, column, maps[0, row, column])
    for k, (name, kernel) in enumerate(kernels.items()):
        x, edge = 440 + 250 * k, kernel.sum() == 0
        axis.text(x, 24, name, weight="bold",
                  color=figures.color("idea" if edge else "control"))
        figures.cells(axis, kernel, x, 44, 44, digits=0 if edge else 2)
        figures.cells(axis, maps[k], x, 204, 14, most=maps.abs().max().item())
    figures.frame(axis, 440 + 14 * column, 204 + 14 * row, 14, 14)
    axis.text(440, 448, "Outputs: blue above zero, vermilion below. Where "
              "nothing\nchanges, edge kernels give zero; the mean only "
              "blurs.", va="top", linespacing=1.4)
    return figure


# %% Drawing: windows
def draw_windows(axis, x, size, kernel, stride, padding, side=18):
    """Where a window stops, and its mean over an image of ones."""
    fits = output_size(size, kernel, stride, padding)
    mean = torch.full((1, 1, kernel, kernel), kernel ** -2)
    image = torch.ones(1, 1, size, size)
    output = conv2d(image, mean, stride=stride, padding=padding)[0, 0]
    centres = side * (stride * torch.arange(fits) + kernel / 2)
    grid = torch.meshgrid(x + centres, 80 + centres, indexing="xy")
    axis.text(x, 4, f"padding {padding}\nstride {stride}", va="top",
              weight="bold", linespacing=1.3)
    padded = F.pad(0.3 * image[0, 0], 4 * [padding])
    figures.cells(axis, padded, x, 80, side)
    figures.frame(axis, x, 80, kernel * side, kernel * side)
    axis.plot(*map(torch.flatten, grid), "o", color=figures.color("ink"))
    axis.text(x, 292, f"output {fits} × {fits}", weight="bold",
              color=figures.color("idea"))
    figures.cells(axis, output, x, 312, side)


# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Slide a kernel over a digit
if __name__ == "__main__":
    test = data.load(args, size=12)[1]
    zero = test.tensors[1].tolist().index(0)
    digit = F.pad(torch.tensor(test.picture(zero)), 4 * [2])  # (16, 16)
    edge = torch.tensor([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]])
    kernels = {"vertical edges": edge, "horizontal edges": edge.T,
               "control: the mean": torch.full((3, 3), 1 / 9)}
    weight = torch.stack(list(kernels.values()))[:, None]  # (3, 1, 3, 3)
    maps = conv2d(digit[None, None], weight, padding=1)[0]
    figure = draw_convolution(digit, kernels, maps)
    figures.save(figure, "layers-convolution")

# %% Padding and stride
if __name__ == "__main__":
    figure, axis = figures.sheet(figures.BESIDE)
    for k, (padding, stride) in enumerate([(0, 1), (1, 1), (0, 2), (1, 2)]):
        draw_windows(axis, 2 + 196 * k, 7, 3, stride, padding)
    axis.text(2, 500, "Outputs: the mean of each window over an image of "
              "ones. Pale: it saw padding.", size=18)
    figures.save(figure, "layers-padding")

# %% What pooling forgives
if __name__ == "__main__":
    known, test = data.load(args, size=16)
    pools = {"no pooling": (lambda x: x, "control", False),
             "every 4th": (lambda x: x[:, :, ::4, ::4], "control", True),
             "max 2x2": (lambda x: max_pool2d(x, 2), "idea", True),
             "max 4x4": (lambda x: max_pool2d(x, 4), "idea", False)}
    figure, axes = figures.panels(
        2, xlabel="shift (pixels)", sharey=False,
        titles=["features: change / length", "digits: share misclassified"])
    for label, (pool, role, thin) in pools.items():
        runs = [shift_test(known.first(500), test, pool, seed)
                for seed in args.seeds]
        for axis, key, values in zip(axes, ["moved", "misclassified"], zip(*runs)):
            figures.band(axis, range(5), torch.stack(values), role, label,
                         linewidth=figures.THIN if thin else figures.HEAVY)
            results.record_range(f"{key}_{label}".replace(" ", "_"),
                                 [each[1].item() for each in values])
    for axis in axes:
        figures.label_lines(axis)
    figures.save(figure, "layers-pooling")

# %% Receptive field, predicted and measured
if __name__ == "__main__":
    figure, (growth, *maps) = figures.panels(
        3, ylabel="input pixels along one side", sharey=False, titles=[
            "3 × 3 layers", "after 3", "after 10, stride 1"])
    for label, role, layers in [
            ("stride 1", "control", 10 * [(3, 1)]),
            ("stride 1, 2, 1, 2, …", "idea", 5 * [(3, 1), (3, 2)])]:
        chains = [layers[:n] for n in range(1, 11)]
        predicted = [receptive_field(chain) for chain in chains]
        seen = [gradient_map(c, size=160).any(1).sum() for c in chains]
        growth.plot(range(1, 11), predicted, label=label, color=figures.color(role))
        growth.plot(range(1, 11), seen, "o", markersize=9, clip_on=False,
                    color=figures.color(role))
    for axis, n in zip(maps, (3, 10)):
        seen = gradient_map(n * [(3, 1)], size=25, samples=64)
        figures.cells(axis, seen, 0, 0, 1, most=seen.max().item())
        figures.frame(axis, 12 - n, 12 - n, 2 * n + 1, 2 * n + 1)
        axis.set_aspect("equal")
        axis.axis("off")
    maps[0].text(0, 26, "frame: predicted\nblue: measured", va="top", linespacing=1.4)
    growth.set(xlabel="layers", xticks=(1, 5, 10))
    results.record("inner_half", seen[7:18, 7:18].sum() / seen.sum())
    figures.label_lines(growth)
    figures.save(figure, "layers-field")

# %% Gradients through 20 layers
if __name__ == "__main__":
    figure, (unit, network) = figures.panels(2, sharey=False, titles=[
        "gradient of one unit", "gradient of each layer's weights"])
    x = torch.linspace(-6, 6, 601)
    for label, gradient, role in (("ReLU", relu_gradient, "idea"),
                                  ("sigmoid", sigmoid_gradient, "control")):
        unit.plot(x, gradient(x), label=label, color=figures.color(role),
                  linewidth=figures.HEAVY)
    for label, activation, role in [("ReLU", relu, "idea"),
                                    ("sigmoid", sigmoid, "control")]:
        runs = [gradient_sizes(activation, 2 ** 0.5, seed) for seed in args.seeds]
        figures.band(network, range(1, 21), runs, role, label,
                     linewidth=figures.HEAVY)
        results.record_range(f"ratio_{label}", [run[0] / run[-1] for run in runs])
    unit.set_xlabel("input")
    network.set(yscale="log", xlabel="layer", xticks=(1, 5, 10, 15, 20))
    for axis in (unit, network):
        figures.label_lines(axis)
    figures.save(figure, "layers-gradients")

# %% Larger weights through 20 sigmoids
if __name__ == "__main__":
    gains = range(1, 17)
    runs = [[gradient_sizes(sigmoid, gain, seed) for gain in gains]
            for seed in args.seeds]
    ratios = torch.tensor(runs)[:, :, 0] / torch.tensor(runs)[:, :, -1]
    figure, [axis] = figures.panels(
        size=figures.BESIDE, xlabel="gain of the weights",
        titles=["gradient of the first layer / of the last"])
    axis.axhline(1, color=figures.color("muted"), linewidth=1.5)
    figures.band(axis, gains, ratios, "control", "sigmoid", linewidth=figures.HEAVY)
    axis.set(yscale="log", xticks=(1, 4, 8, 12, 16))
    figures.label_lines(axis)
    figures.save(figure, "layers-gain")
    for gain in (1, 8, 12, 16):
        results.record_range(f"ratio_at_gain_{gain}", ratios[:, gain - 1].tolist())
    results.record_range("saturated_at_gain_12", [
        (sigmoid_gradient(activation_inputs(sigmoid, 12, seed)) < 0.01)
        .float().mean().item() for seed in args.seeds])

# %% Signals through 20 layers
if __name__ == "__main__":
    figure, [axis] = figures.panels(
        size=figures.BESIDE, xlabel="layer",
        titles=["root mean square before each ReLU"])
    for label, variance, role in [("4 / n", 4, "control"), ("2 / n", 2, "idea"),
                                  ("1 / n", 1, "control")]:
        runs = torch.stack([activation_inputs(relu, variance ** 0.5, seed)
                            for seed in args.seeds]).square().mean((2, 3)).sqrt()
        figures.band(axis, range(1, 21), runs, role, label, linewidth=(
            figures.HEAVY if role == "idea" else figures.THIN))
        results.record_range(f"signal_{variance}", (runs[:, -1] / runs[:, 0]).tolist())
    axis.set(yscale="log", xticks=(1, 5, 10, 15, 20))
    figures.label_lines(axis)
    figures.save(figure, "layers-initialization")

# %% Softmax and its temperature
if __name__ == "__main__":
    logits = torch.tensor([3.0, 2.0, 1.0, -1.0])
    temperatures = (0.5, 1, 4)
    figure, axes = figures.panels(
        3, figures.BESIDE, ylabel="probability", xlabel="logit",
        titles=[f"T = {temperature}" for temperature in temperatures])
    for axis, temperature in zip(axes, temperatures):
        p = softmax(logits / temperature)
        axis.bar(range(4), p, color=figures.color("idea"), width=0.7)
        axis.set_xticks(range(4), ["3", "2", "1", "−1"])
        axis.set_xlim(-0.6, 3.6)
        for k, height in enumerate(p.tolist()):
            axis.text(k, height, f"{height:.2f}", ha="center", va="bottom")
    figures.save(figure, "layers-softmax")

# %% Cross-entropy against squared error
if __name__ == "__main__":
    margin = torch.linspace(-8, 8, 81, requires_grad=True)
    logits = torch.stack([margin, torch.zeros(81)], 1)  # class 0 is right
    right = torch.tensor([0])
    entropy = torch.stack([cross_entropy(z[None], right) for z in logits])
    squared = (softmax(logits) - torch.tensor([1, 0])).square().sum(1)
    figure, axes = figures.panels(
        2, sharey=False, xlabel="logit of the label minus the other",
        titles=["loss", "absolute gradient"])
    for label, role, loss in (("cross-entropy", "idea", entropy),
                              ("squared error", "control", squared)):
        slope, = torch.autograd.grad(loss.sum(), margin, retain_graph=True)
        for axis, values in zip(axes, (loss.detach(), slope.abs())):
            axis.plot(margin.detach(), values, label=label,
                      color=figures.color(role), linewidth=figures.HEAVY)
    for axis in axes:
        figures.label_lines(axis)
    figures.annotate(axes[1], -5, slope[15].abs(), "wrong, yet\nno gradient")
    figures.save(figure, "layers-loss")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
