# %% [markdown]
# # LeNet-5
#
# - **Paper**: Yann LeCun, Léon Bottou, Yoshua Bengio, Patrick Haffner.
#   *Gradient-Based Learning Applied to Document Recognition*.
#   Proceedings of the IEEE 1998.
#   [doi:10.1109/5.726791](https://doi.org/10.1109/5.726791)
# - **Idea**: small filters slid over the image find the same stroke wherever
#   it stands, and pooling makes what they found robust to small shifts.
# - **Demo**: LeNet-5 against a fully connected network of as many weights,
#   what its filters and feature maps look like, and what it gets wrong.
# - **Time**: about 20 s on 2 CPU cores

# %%
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lab import cli, compare, data, figures, measure, results, training

# %% [markdown]
# ## The network, as it is written today

# %%
class LeNet5(nn.Module):
    """(B, 1, 28, 28) -> logits (B, 10); figure 2 of the paper, but with
    ReLU, max pooling and a linear output."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)   # paper: 32x32 input
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))     # (B, 6, 14, 14)
        x = self.pool(F.relu(self.conv2(x)))     # (B, 16, 5, 5)
        x = F.relu(self.fc1(x.flatten(1)))       # (B, 120)
        x = F.relu(self.fc2(x))                  # (B, 84)
        return self.fc3(x)                       # (B, 10)


# %%
class FullyConnected(nn.Module):
    """The control: one hidden layer, about as many weights as LeNet-5.

    (B, 1, 28, 28) -> logits (B, 10). It has no idea that pixels are neighbours.
    """

    def __init__(self, hidden_size=77, num_classes=10):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, hidden_size)
        self.fc2 = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


# %% [markdown]
# ## The network of 1998

# %%
def scaled_tanh(a):
    """f(a) = 1.7159 tanh(2a/3), so that f(1) = 1 and f(-1) = -1; appendix A."""
    return 1.7159 * torch.tanh(2 / 3 * a)


# %%
class Subsampling(nn.Module):
    """Each 2x2 patch's sum, times a weight, plus a bias.

    (B, C, H, W) -> (B, C, H/2, W/2); layers S2 and S4.
    """

    def __init__(self, channels):
        super().__init__()
        one_per_map = torch.ones(channels, 1, 1)
        self.weight = nn.Parameter(one_per_map / 4)
        self.bias = nn.Parameter(0 * one_per_map)

    def forward(self, x):
        patch_sum = 4 * F.avg_pool2d(x, kernel_size=2)
        return self.weight * patch_sum + self.bias


# %%
# Table I: which of the six maps of S2 each of the sixteen maps of C3 sees.
C3_INPUTS = ["012", "123", "234", "345", "045", "015", "0123", "1234",
             "2345", "0345", "0145", "0125", "0134", "1245", "0235", "012345"]


class SparseConv2d(nn.Conv2d):
    """Layer C3: each map sees only some of the inputs.

    (B, 6, 14, 14) -> (B, 16, 10, 10)
    """

    def __init__(self):
        super().__init__(6, 16, kernel_size=5)
        seen = [[str(i) in inputs for i in range(6)]
                for inputs in C3_INPUTS]
        mask = torch.tensor(seen)[:, :, None, None]
        self.register_buffer("mask", mask)

    def forward(self, x):
        weight = self.weight * self.mask
        return F.conv2d(x, weight, self.bias)


# %%
# paper: figure 3 has 7x12 bitmaps of all printable characters; here: ten digits.
DIGIT_BITMAPS = """
......................................................................
.####....##....####...####......##.######...###..######..####...####..
##..##..###...##..##.##..##....###.##......##........##.##..##.##..##.
##..##.####.......##.....##...####.##.....##.........##.##..##.##..##.
##..##...##.......##.....##..##.##.##.....##........##..##..##.##..##.
##..##...##......##....###..##..##.#####..#####.....##...####...#####.
##..##...##.....##.......##.######.....##.##..##...##...##..##.....##.
##..##...##....##........##.....##.....##.##..##...##...##..##.....##.
##..##...##...##.........##.....##.....##.##..##...##...##..##.....##.
##..##...##...##.....##..##.....##.##..##.##..##..##....##..##....##..
.####..######.######..####......##..####...####...##.....####...###...
......................................................................
""".split()


# %%
class RadialBasis(nn.Module):
    """Squared distance to ten bitmaps of pixels +-1, eq. 7.

    (B, 84) -> (B, 10). paper: the smallest distance wins;
    here: minus the distance, so that the largest wins.
    """

    def __init__(self):
        super().__init__()
        black = torch.tensor([[c == "#" for c in row]
                              for row in DIGIT_BITMAPS])
        digits = black.unflatten(1, (10, 7)).transpose(0, 1)
        bitmaps = 2.0 * digits.flatten(1) - 1   # (10, 84)
        self.register_buffer("bitmaps", bitmaps)

    def forward(self, x):
        return -(x[:, None] - self.bitmaps).square().sum(2)


# %%
class LeNet5Original(nn.Module):
    """LeNet-5 as in section II.B: (B, 1, 28, 28) -> (B, 10).

    paper: weights at first uniform within 2.4 / fan-in (appendix A); here: torch's.
    paper: inputs -0.1 (background) and 1.175; here: mean 0, variance 1, and the padding
    of c1 frames them with the mean grey where the paper's 32x32 extend the background.
    """

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5, padding=2)   # paper: 32x32 pixels
        self.s2 = Subsampling(6)
        self.c3 = SparseConv2d()
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, kernel_size=5)
        self.f6 = nn.Linear(120, 84)
        self.output = RadialBasis()

    def forward(self, x):
        for layer in [self.c1, self.s2, self.c3, self.s4,
                      self.c5]:
            x = scaled_tanh(layer(x))
        return self.output(scaled_tanh(self.f6(x.flatten(1))))


# %%
def map_loss(logits, labels, j=1.0):
    """Eq. 9: y_label + log(exp(-j) + sum_i exp(-y_i)).

    logits (B, K) are minus the distances y, labels (B). It
    is the cross-entropy with one more class, "rubbish", at
    the constant distance j. Eq. 9 takes any j > 0; here 1.
    """
    rubbish = torch.full_like(logits[:, :1], -j)
    logits = torch.cat([logits, rubbish], dim=1)
    return F.cross_entropy(logits, labels)


# %% [markdown]
# ## Training

# %%
@dataclass(frozen=True)
class Settings(cli.Settings):
    epochs: int = 12
    batch_size: int = 32
    lr: float | None = None
    rates: tuple[float, ...] = (0.005, 0.02, 0.05, 0.1)
    tune: bool = False
    runs: int = 3


SETTINGS = {
    "digits": Settings(),
    "mnist": Settings(epochs=5, batch_size=128),
    "fashion_mnist": Settings(epochs=5, batch_size=128)}


# %%
@training.memoize
def trained(network, args, seed):
    """network() Trained on args.data.

    paper, section III.B: a diagonal approximation of the Hessian gives each weight its
    rate, which falls in steps over 20 passes; here: SGD with momentum, one_cycle().
    """
    torch.manual_seed(seed)
    train, test = data.load(args, size=28)
    model = training.place(network(), args)
    loss = map_loss if network is LeNet5Original else F.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    batches = training.loader(train, args)
    schedule = training.one_cycle(optimizer, args.epochs * len(batches))

    def step(batch):
        images, labels = batch
        with training.precision(args):
            batch_loss = loss(model(images), labels)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": batch_loss}

    history = training.fit(
        step, batches, args, seed=seed,
        save={"model": model, "optimizer": optimizer, "schedule": schedule},
        validate=lambda: training.accuracy(model, test, args),
        name=f"lenet-{network.__name__}-{args.data}-{seed}")
    return training.Trained(model, history)


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    return {network.__name__: (trained, network)
            for network in [LeNet5Original, LeNet5, FullyConnected]}


# %%
def shifted(test, pixels):
    """Move every image of the test set to the right; background comes in."""
    images, labels = test.tensors
    moved = F.pad(images, (pixels, -pixels), value=images.min().item())
    return TensorDataset(moved, labels)


# %%
def facts():
    """Numbers on the slides that follow from the networks alone."""
    model, original = LeNet5(), LeNet5Original()
    unconnected = 25 * int((~original.c3.mask).sum())
    fields = measure.receptive_fields(
        [model.conv1, model.pool, model.conv2, model.pool, (5, 1)])
    layers = ["conv1", "pool1", "conv2", "pool2", "fc1"]
    return {
        "parameters": measure.parameters(model),
        "multiply_adds": measure.multiply_adds(model, (1, 1, 28, 28)),
        "conv1_parameters": measure.parameters(model.conv1),
        "conv2_parameters": measure.parameters(model.conv2),
        "fc1_parameters": measure.parameters(model.fc1),
        "fully_connected_parameters": measure.parameters(FullyConnected()),
        "fully_connected_multiply_adds":
            measure.multiply_adds(FullyConnected(), (1, 1, 28, 28)),
        "original_parameters": measure.parameters(original) - unconnected,
        "original_c3_parameters": measure.parameters(original.c3) - unconnected,
        **{f"receptive_field_{name}": field for name, field in zip(layers, fields)},
    }


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)

# %% Architecture
if __name__ == "__main__":
    figure = figures.architecture(LeNet5(), (1, 1, 28, 28))
    figures.save(figure, "lenet-architecture")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Convolution against full connection
if __name__ == "__main__":
    networks, comparison = compare.train(sides(args), args), {}
    for title, role, network in [("fully connected", "control", FullyConnected),
                                 ("LeNet-5", "idea", LeNet5)]:
        weights = f"{measure.parameters(network()):,} weights"
        comparison[title] = role, {
            weights: training.by_epoch(networks[network.__name__], "test_error")}
    figures.save(figures.curves(comparison, ylabel="test error (%)"), "lenet-training")

# %% A digit that moves
if __name__ == "__main__":
    networks, (_, test) = compare.train(sides(args), args), data.load(args, size=28)
    shifts = range(6)
    figure, (axis,) = figures.panels(
        xlabel="shift to the right (pixels of 28)", ylabel="test error (%)")
    for role, label, name in [("control", "fully connected", "FullyConnected"),
                              ("idea", "LeNet-5", "LeNet5")]:
        errors = [[training.accuracy(model, shifted(test, pixels), args)["test_error"]
                   for pixels in shifts] for model, _ in networks[name]]
        figures.band(axis, shifts, errors, role, label)
        results.record_range(f"{name}_shift2_error", [each[2] for each in errors])
    figures.label_lines(axis)
    figures.save(figure, "lenet-shift")

# %% Filters
if __name__ == "__main__":
    model = trained(LeNet5, compare.chosen("LeNet5", args), args.seed).model
    figures.save(figures.filters(model.conv1.weight), "lenet-filters")

# %% One digit through the network
if __name__ == "__main__":
    _, test = data.load(args, size=28)
    model = trained(LeNet5, compare.chosen("LeNet5", args), args.seed).model
    figure = figures.feature_maps(
        model, test[3][0], ["conv1", "conv2", "fc1", "fc2", "fc3"])
    figures.save(figure, "lenet-feature-maps")

# %% Confusion matrix
if __name__ == "__main__":
    _, test = data.load(args, size=28)
    model = trained(LeNet5, compare.chosen("LeNet5", args), args.seed).model
    logits, labels = training.predict(model, test, args)
    pairs = 10 * labels + logits.argmax(dim=1)
    matrix = pairs.bincount(minlength=100).view(10, 10)
    figures.save(figures.confusion(matrix, test.classes), "lenet-confusion")

# %% What it gets wrong
if __name__ == "__main__":
    _, test = data.load(args, size=28)
    model = trained(LeNet5, compare.chosen("LeNet5", args), args.seed).model
    logits, labels = training.predict(model, test, args)
    predicted = logits.argmax(dim=1)
    surest = F.cross_entropy(logits, labels, reduction="none").topk(12).indices
    figures.save(figures.images(
        [test.picture(i) for i in surest],
        [f"{test.classes[labels[i]]}, said {test.classes[predicted[i]]}"
         for i in surest],
        highlight=[k for k, i in enumerate(surest) if labels[i] != predicted[i]],
        columns=6), "lenet-mistakes")

# %% The network of 1998
if __name__ == "__main__":
    model = trained(
        LeNet5Original, compare.chosen("LeNet5Original", args), args.seed).model
    bitmaps = model.output.bitmaps.view(10, 12, 7)
    figures.save(figures.images(list(0.5 - 0.5 * bitmaps.cpu()), columns=10),
                 "lenet-bitmaps")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
