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
# - **Paper**: Xavier Glorot, Antoine Bordes, Yoshua Bengio. *Deep Sparse Rectifier
#   Neural Networks*. AISTATS 2011. [PMLR
#   15](https://proceedings.mlr.press/v15/glorot11a.html)
# - **Paper**: Nitish Srivastava, Geoffrey Hinton, Alex Krizhevsky, Ilya Sutskever,
#   Ruslan Salakhutdinov. *Dropout: A Simple Way to Prevent Neural Networks from
#   Overfitting*. JMLR 2014. [JMLR
#   15(56)](https://jmlr.org/papers/v15/srivastava14a.html)
# - **Paper**: Sergey Ioffe, Christian Szegedy. *Batch Normalization: Accelerating
#   Deep Network Training by Reducing Internal Covariate Shift*. ICML 2015.
#   [arXiv:1502.03167](https://arxiv.org/abs/1502.03167)
# - **Paper**: Jimmy Lei Ba, Jamie Ryan Kiros, Geoffrey E. Hinton. *Layer
#   Normalization*. arXiv 2016. [arXiv:1607.06450](https://arxiv.org/abs/1607.06450)
# - **Paper**: Dmitry Ulyanov, Andrea Vedaldi, Victor Lempitsky. *Instance
#   Normalization: The Missing Ingredient for Fast Stylization*. arXiv 2016.
#   [arXiv:1607.08022](https://arxiv.org/abs/1607.08022)
# - **Paper**: Yuxin Wu, Kaiming He. *Group Normalization*. ECCV 2018.
#   [arXiv:1803.08494](https://arxiv.org/abs/1803.08494)
# - **Idea**: a network is a chain of small functions, each a few lines long and
#   each differentiable; torch's own give the same values and gradients.
# - **Demo**: one figure for each block, most with what happens without it;
#   where a claim does not show at this size, the figure says so.
# - **Time**: about 10 s on 2 CPU cores

# %%
from dataclasses import dataclass

import numpy
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import nn

from lab import cli, data, figures, measure, results, training


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
    """Squashes to (0, 1)."""
    return 1 / (1 + torch.exp(-x))


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


# %% Dropout
def dropout(x, p=0.5, training=True):
    """Drops each value with probability p, 0 <= p < 1.

    Srivastava et al. 2014. What is kept grows by
    1 / (1 - p): the mean stays, and at test time there
    is nothing to do.
    """
    # paper: kept as is, and times 1 - p at test time
    if not training:
        return x
    kept = torch.rand_like(x) >= p
    return x * kept / (1 - p)


# %% Batch normalisation
def batch_norm(x, running_mean, running_var, weight, bias,
               training=False, momentum=0.1, eps=1e-5):
    """Ioffe and Szegedy 2015: x (B, C, H, W), rest (C,).

    Training: with this batch's statistics, of which the
    running ones are an average. Testing: with those.
    """
    mean, var = running_mean, running_var
    if training:
        axes, n = (0, 2, 3), x.numel() / x.shape[1]
        var, mean = torch.var_mean(x, axes, correction=0)
        unbiased = var.detach() * n / (n - 1)
        running_mean.lerp_(mean.detach(), momentum)
        running_var.lerp_(unbiased, momentum)
    scale = weight / (var + eps).sqrt()  # (C,)
    shift = bias - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


# %% Normalisation over any axes
def normalize(x, axes, eps=1e-5):
    """Mean 0 and variance 1 over the given axes."""
    variance, mean = torch.var_mean(
        x, axes, correction=0, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


def layer_norm(x):
    """Ba et al. 2016: each image, all its channels."""
    return normalize(x, (1, 2, 3))


def instance_norm(x):
    """Ulyanov et al. 2016: each image and channel."""
    return normalize(x, (2, 3))


def group_norm(x, groups):
    """Wu and He 2018: each image and group of channels."""
    x = rearrange(x, "b (g c) h w -> b g c h w", g=groups)
    y = normalize(x, (2, 3, 4))
    return rearrange(y, "b g c h w -> b (g c) h w")


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


# %% Networks to measure
def convolutions(depth, norm=nn.Identity, width=16, gain=1.0):
    """depth 3x3 convolutions with ReLU on grey images, then a classifier.

    The first halves the size. norm: nn.BatchNorm2d or any layer that takes
    the number of channels. gain: of He's initial weights.
    """
    channels, layers = 1, []
    for k in range(depth):
        conv = nn.Conv2d(channels, width, 3, stride=1 + (k == 0), padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        conv.weight.data *= gain
        nn.init.zeros_(conv.bias)
        layers += [conv, norm(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, 10))


def perceptron(dropout, width=256):
    """Two hidden layers for 8x8 digits, dropout after each."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, 10))


# %% Training
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 4
    batch_size: int = 32
    lr: float = 0.05
    runs: int = 3


SETTINGS = {"digits": Settings()}


def train(model, images, args, lr, seed, **options):
    """Minimise our cross-entropy by SGD; returns the history by epoch."""
    model = training.place(model, args)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    def step(batch):
        inputs, labels = batch
        loss = cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    return training.fit(
        step, training.loader(images, args), args, seed=seed,
        save={"model": model, "optimizer": optimizer}, **options)


# %% Errors in training
@torch.no_grad()
def error_rate(model, images):
    """Share of the images whose class the model gets wrong."""
    inputs, labels = images.tensors
    device = next(model.parameters()).device
    guesses = model.eval()(inputs.to(device)).argmax(1).cpu()
    return (guesses != labels).float().mean().item()


def overfit(few, test, args, dropout, seed):
    """Errors (%) on `few` images and on the test set, by epoch."""
    torch.manual_seed(seed)
    model = perceptron(dropout)
    return train(model, few, args, 0.02, seed, epochs=40, validate=lambda: {
        "test": 100 * error_rate(model, test),
        "train": 100 * error_rate(model, few)})


# %% Tolerance of shifts
def shift_test(known, test, pool, seed):
    """Pooled random edge features of digits moved by 0 to 4 pixels.

    Returns how far they move and how many digits are mistaken (both %).
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
    mistakes = [(guess != labels).float().mean() for guess in guesses]
    return 100 * torch.tensor([changes, mistakes])


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


def gradient_sizes(activation, gain, seed, depth=20, width=100):
    """Norm of each layer's gradient in a random fully connected network."""
    torch.manual_seed(seed)
    scale = gain / width ** 0.5
    weights = [nn.Parameter(scale * torch.randn(width, width))
               for _ in range(depth)]
    x = torch.randn(64, width)
    for weight in weights:
        x = activation(linear(x, weight, 0))
    logits = linear(x, torch.randn(10, width), 0)
    cross_entropy(logits, torch.randint(10, (64,))).backward()
    return [weight.grad.norm().item() for weight in weights]


def activation_sizes(model, images):
    """Standard deviation after each ReLU of a sequential model."""
    sizes = []
    for layer in model:
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            sizes.append(images.std().item())
    return sizes


# %% Drawing: a matrix
def draw_cells(axis, values, x, y, side, most=None, high="idea"):
    """Squares from (x, y) on: blue above zero, vermilion below."""
    from matplotlib.colors import LinearSegmentedColormap
    colors = [figures.color(role) for role in ("control", "paper", high)]
    signed = LinearSegmentedColormap.from_list("signed", colors)
    most = most or values.abs().max().item()
    rows, columns = (side * torch.arange(n + 1) for n in values.shape)
    axis.pcolormesh(x + columns, y + rows, values, vmin=-most, vmax=most,
                    cmap=signed, edgecolors="face", linewidth=0.5)
    draw_frame(axis, x, y, columns[-1], rows[-1], "muted", 1.5)


def draw_numbers(axis, values, x, y, side, digits):
    """The numbers of a matrix, white where draw_cells made it dark."""
    for (row, column), value in numpy.ndenumerate(values.numpy()):
        role = "paper" if abs(value) > 0.6 else "ink"
        axis.text(x + (column + 0.5) * side, y + (row + 0.5) * side,
                  f"{value:.{digits}f}".replace("-", "−"), ha="center",
                  va="center_baseline", size=16, color=figures.color(role))


def draw_frame(axis, x, y, width, height, role="ink", thickness=3):
    from matplotlib.patches import Rectangle
    axis.add_patch(Rectangle(
        (x, y), width, height, fill=False, zorder=3, linewidth=thickness,
        edgecolor=figures.color(role)))


# %% Drawing: a convolution
def draw_input(axis, digit, row, column, output):
    """The digit, the window around (row, column) and what comes of it."""
    axis.text(2, 24, "input", weight="bold")
    draw_cells(axis, digit, 2, 44, 23, high="ink")
    draw_frame(axis, 23 * column - 21, 21 + 23 * row, 69, 69, "idea", 4)
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
        draw_cells(axis, kernel, x, 44, 44, most=1)
        draw_numbers(axis, kernel, x, 44, 44, digits=0 if edge else 2)
        draw_cells(axis, maps[k], x, 204, 14, most=maps.abs().max().item())
    draw_frame(axis, 440 + 14 * column, 204 + 14 * row, 14, 14)
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
    draw_cells(axis, padded, x, 80, side, most=1)
    draw_frame(axis, x, 80, kernel * side, kernel * side)
    axis.plot(*map(torch.flatten, grid), "o", color=figures.color("ink"))
    axis.text(x, 292, f"output {fits} × {fits}", weight="bold",
              color=figures.color("idea"))
    draw_cells(axis, output, x, 312, side, most=1)


# %% Drawing: a tensor
def draw_tensor(axis, mask, x, y, side):
    """(B, C, S) as a block, C to the right, S down, B back; blue: True."""
    from matplotlib.patches import Polygon
    last = mask.shape[1] - 1
    for (b, c, s), inside in numpy.ndenumerate(mask.numpy()):
        for visible, shade, *corners in (
            (b == 0, 1, (0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)),
            (s == 0, 0.8, (0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
            (c == last, 0.6, (0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)),
        ):
            if visible:
                axis.add_patch(Polygon(
                    [(x + side * (c + j + 0.5 * (b + i)),
                      y + side * (s + k - 0.35 * (b + i)))
                     for i, j, k in corners], linewidth=1.5,
                    edgecolor=figures.color("paper" if inside else "muted"),
                    facecolor=figures.color("idea", shade) if inside
                    else figures.color("panel")))


def name_axes(axis, shape, x, y, side):
    """The letters of draw_tensor's axes, beside the block."""
    B, C, S = shape
    for name, right, down in (("B", C / 2 + B / 2, -0.35 * B - 0.4),
                              ("C", C / 2, S + 0.6), ("H W", -0.6, S / 2)):
        axis.text(x + side * right, y + side * down, name, ha="center",
                  va="center_baseline", rotation=90 * (name == "H W"),
                  size=18, color=figures.color("muted"))


# %% Drawing: lines
HALF = (572, 480)  # pixels, for two figures side by side


def draw_field(axis, predicted, measured, label, role):
    layers = range(1, len(predicted) + 1)
    axis.plot(layers, predicted, label=label, color=figures.color(role))
    axis.plot(layers, measured, "o", markersize=9, clip_on=False,
              color=figures.color(role))
    axis.set(xlabel="layers", xticks=(1, 5, 10))


def draw_runs(axis, x, runs, label, role, thin=False):
    """The mean of runs, one per seed, and a band from lowest to highest."""
    runs = torch.as_tensor(numpy.array(runs))
    axis.fill_between(x, runs.amin(0), runs.amax(0), linewidth=0,
                      alpha=0.14, color=figures.color(role))
    axis.plot(x, runs.mean(0), label=label, color=figures.color(role),
              linewidth=figures.THIN if thin else figures.HEAVY)


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
        2, xlabel="shift (pixels)", ylabel="%", sharey=False,
        titles=["features: how far they move", "digits: how many mistaken"])
    for label, (pool, role, thin) in pools.items():
        runs = [shift_test(known.first(500), test, pool, seed)
                for seed in args.seeds]
        for axis, values in zip(axes, zip(*runs)):
            draw_runs(axis, range(5), values, label, role, thin)
        moved, mistaken = torch.stack(runs).mean(0)[:, 1] / 100
        results.record(f"moved_{label}".replace(" ", "_"), moved)
        results.record(f"mistaken_{label}".replace(" ", "_"), mistaken)
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
        draw_field(growth, predicted, seen, label, role)
    for axis, n in zip(maps, (3, 10)):
        seen = gradient_map(n * [(3, 1)], size=25, samples=64)
        draw_cells(axis, seen, 0, 0, 1)
        draw_frame(axis, 12 - n, 12 - n, 2 * n + 1, 2 * n + 1)
        axis.set_aspect("equal")
        axis.axis("off")
    maps[0].text(0, -1, "frame: predicted; blue: measured", va="top")
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
    for label, activation, gain, role in [
            ("ReLU", relu, 2 ** 0.5, "idea"),
            ("sigmoid", sigmoid, 2 ** 0.5, "control"),
            ("3 × weights", sigmoid, 3 * 2 ** 0.5, "control")]:
        runs = [gradient_sizes(activation, gain, seed) for seed in args.seeds]
        draw_runs(network, range(1, 21), runs, label, role, gain > 2)
    unit.set_xlabel("input")
    network.set(yscale="log", xlabel="layer", xticks=(1, 5, 10, 15, 20))
    for axis in (unit, network):
        figures.label_lines(axis)
    figures.save(figure, "layers-gradients")

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
        2, sharey=False, xlabel="right logit minus wrong logit",
        titles=["loss", "size of its gradient"])
    for label, role, loss in (("cross-entropy", "idea", entropy),
                              ("squared error", "control", squared)):
        slope, = torch.autograd.grad(loss.sum(), margin, retain_graph=True)
        for axis, values in zip(axes, (loss.detach(), slope.abs())):
            axis.plot(margin.detach(), values, label=label,
                      color=figures.color(role), linewidth=figures.HEAVY)
    for axis in axes:
        figures.label_lines(axis)
    figures.annotate(axes[1], -5, slope[15].abs(), "wrong, yet\nno pull")
    figures.save(figure, "layers-loss")

# %% Dropout on 200 digits
if __name__ == "__main__":
    known, test = data.load(args, size=8)
    comparison = {}
    for name, role, p in (("without", "control", 0.0),
                          ("dropout", "idea", 0.5)):
        runs = [overfit(known.first(200), test, args, p, seed)
                for seed in args.seeds]
        comparison[name] = role, {
            key: [run[key] for run in runs] for key in ("test", "train")}
        errors = [run["test"][-1] / 100 for run in runs]
        results.record(f"{name}_error", numpy.mean(errors))
        results.record(f"{name}_error_lowest", min(errors))
        results.record(f"{name}_error_highest", max(errors))
    figure = figures.curves(comparison, "error (%)", size=figures.BESIDE)
    figures.save(figure, "layers-dropout")

# %% Activations through 20 layers
if __name__ == "__main__":
    known, test = data.load(args, size=8)
    figure, [axis] = figures.panels(
        size=HALF, xlabel="layer", ylabel="standard deviation",
        titles=["activations, weights × 2 and × ½"])
    for name, norm, role in (("plain", nn.Identity, "control"),
                             ("normalised", nn.BatchNorm2d, "idea")):
        for gain, weights in ((2, "× 2"), (0.5, "× ½")):
            torch.manual_seed(args.seed)
            model = convolutions(20, norm, gain=gain)
            axis.plot(range(1, 21), activation_sizes(model, known[:256][0]),
                      label=f"{name}, {weights}", color=figures.color(role))
    axis.set(yscale="log", xticks=(1, 5, 10, 15, 20))
    figures.label_lines(axis)
    figures.save(figure, "layers-activations")

# %% Training with and without normalisation
if __name__ == "__main__":
    known, test = data.load(args, size=8)
    figure, [axis] = figures.panels(
        size=HALF, xlabel="epoch", titles=["training loss"])
    for name, norm, role in (("plain", nn.Identity, "control"),
                             ("normalised", nn.BatchNorm2d, "idea")):
        losses = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            model = convolutions(10, norm)
            losses.append(train(model, known, args, args.lr, seed)["loss"])
        draw_runs(axis, range(1, len(losses[0]) + 1), losses, name, role)
        results.record(f"{name}_loss", numpy.mean(losses, 0)[-1])
    axis.set_ylim(bottom=0)
    axis.set_xticks(range(1, len(losses[0]) + 1))
    figures.label_lines(axis)
    figures.save(figure, "layers-normalisation")

# %% Four normalisations, one formula
if __name__ == "__main__":
    norms = {"batch": ("B, H, W", lambda x: normalize(x, (0, 2, 3))),
             "layer": ("C, H, W", layer_norm),
             "instance": ("H, W", instance_norm),
             "group": ("C / G, H, W", lambda x: group_norm(x, groups=2))}
    figure, axis = figures.sheet()
    for k, (name, (axes, norm)) in enumerate(norms.items()):
        left = 36 + 290 * k
        x = torch.randn(3, 6, 3, 2, requires_grad=True)  # (B, C, H, W)
        norm(x)[0, -1, 0, 0].backward()
        shared = x.grad.flatten(2) != 0                  # (B, C, H W)
        draw_tensor(axis, shared, left, 128, 33)
        name_axes(axis, shared.shape, left, 128, 33)
        axis.text(left, 40, name, weight="bold", size=26)
        axis.text(left, 400, f"mean over {axes}", weight="bold",
                  color=figures.color("idea"))
        axis.text(left, 432, f"{shared.sum()} of {shared.numel()} values")
    axis.text(36, 490, "Blue: what the normalised value at the upper right "
              "in front depends on, found by its gradient.")
    figures.save(figure, "layers-norms")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
