# %% [markdown]
# # Vision Transformer
#
# - **Paper**: Alexey Dosovitskiy, Lucas Beyer, Alexander Kolesnikov,
#   Dirk Weissenborn, Xiaohua Zhai, Thomas Unterthiner, Mostafa Dehghani,
#   Matthias Minderer, Georg Heigold, Sylvain Gelly, Jakob Uszkoreit, Neil Houlsby.
#   *An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale*.
#   ICLR 2021. [arXiv:2010.11929](https://arxiv.org/abs/2010.11929)
# - **Paper**: Samira Abnar, Willem Zuidema.
#   *Quantifying Attention Flow in Transformers*.
#   ACL 2020. [arXiv:2005.00928](https://arxiv.org/abs/2005.00928)
# - **Idea**: cut the image into patches and read them as a Transformer reads tokens;
#   what a convolution knows of images is left to be learned.
# - **Demo**: a ViT against a CNN of about equal multiply-adds on more and more digits,
#   on moved ones and on puzzles; attention rollout; what the positions have learned.
# - **Time**: about 45 s on 2 CPU cores

# %%
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from math import isqrt

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from lab import (
    UserError,
    cli,
    compare,
    data,
    figures,
    measure,
    results,
    training,
    weights,
)
from multi_head import MultiHeadAttention, attention_maps
from resnet import CifarResNet

# %% [markdown]
# ## Blocks

# %%
def mlp(hidden_dim, mlp_dim, dropout):
    """To mlp_dim and back, the same for each token: (B, T, D) -> (B, T, D)."""
    layers = nn.Sequential(
        nn.Linear(hidden_dim, mlp_dim), nn.GELU(), nn.Dropout(dropout),
        nn.Linear(mlp_dim, hidden_dim), nn.Dropout(dropout))
    for layer in (layers[0], layers[3]):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(layer.bias, std=1e-6)
    return layers


# %%
class EncoderBlock(nn.Module):
    """Norm, attention, plus; norm, MLP, plus: eq. 2 and 3.

    (B, T, D) -> (B, T, D)
    """

    def __init__(self, hidden_dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        self.ln_1 = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.self_attention = MultiHeadAttention(hidden_dim, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.mlp = mlp(hidden_dim, mlp_dim, dropout)

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.dropout(self.self_attention(y, y, y))
        return x + self.mlp(self.ln_2(x))


# %%
class Encoder(nn.Module):
    """Adds the positions, then lets tokens attend to each other.

    (B, T, D) -> (B, T, D)
    """

    def __init__(self, length, depth, hidden_dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        self.pos_embedding = nn.Parameter(
            torch.empty(1, length, hidden_dim).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(OrderedDict(
            (f"encoder_layer_{i}",
             EncoderBlock(hidden_dim, num_heads, mlp_dim, dropout))
            for i in range(depth)))
        self.ln = nn.LayerNorm(hidden_dim, eps=1e-6)

    def forward(self, x):
        x = self.dropout(x + self.pos_embedding)
        return self.ln(self.layers(x))


# %% [markdown]
# ## The network, section 3.1

# %%
class VisionTransformer(nn.Module):
    """(B, C, S, S) -> logits (B, K), S = image_size; in the paper C = 3, S = 224."""

    def __init__(self, patch_size, depth, hidden_dim, num_heads, mlp_dim,
                 num_classes=1000, image_size=224, in_channels=3, dropout=0.0):
        super().__init__()
        self.conv_proj = nn.Conv2d(in_channels, hidden_dim, patch_size,
                                   stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden_dim))
        length = 1 + (image_size // patch_size) ** 2
        self.encoder = Encoder(length, depth, hidden_dim, num_heads, mlp_dim, dropout)
        # paper: a hidden layer with tanh before it, in pre-training; here: none
        self.heads = nn.Sequential(OrderedDict(
            head=nn.Linear(hidden_dim, num_classes)))
        self.initialize()

    def forward(self, images):
        x = self.conv_proj(images)                 # (B, D, S/P, S/P)
        x = rearrange(x, "b d h w -> b (h w) d")   # patches as tokens
        token = self.class_token.expand(len(x), -1, -1)
        x = self.encoder(torch.cat([token, x], dim=1))   # (B, 1 + T, D)
        return self.heads(x[:, 0])                 # the class token's

    def initialize(self):
        """As torchvision: patches of variance about 1, a head that says nothing."""
        patches = self.conv_proj.weight
        nn.init.trunc_normal_(patches, std=patches[0].numel() ** -0.5)
        for zero in (self.conv_proj.bias, *self.heads.parameters()):
            nn.init.zeros_(zero)


# %%
def vit_b_16(num_classes=1000, image_size=224):
    return VisionTransformer(16, 12, 768, 12, 3072, num_classes, image_size)


def vit_b_32(num_classes=1000, image_size=224):
    return VisionTransformer(32, 12, 768, 12, 3072, num_classes, image_size)


def vit_l_16(num_classes=1000, image_size=224):
    return VisionTransformer(16, 24, 1024, 16, 4096, num_classes, image_size)


def vit_l_32(num_classes=1000, image_size=224):
    return VisionTransformer(32, 24, 1024, 16, 4096, num_classes, image_size)


def vit_h_14(num_classes=1000, image_size=224):
    return VisionTransformer(14, 32, 1280, 16, 5120, num_classes, image_size)


# %% [markdown]
# ## Looking inside

# %%
@torch.no_grad()
def attention_rollout(model, image):
    """Trace how much of each position of image (C, H, W) the class token gets.

    Abnar and Zuidema 2020: after each layer a token is half
    itself, half what it attends to. Returns (H, W), 0..1.
    """
    with attention_maps(model.eval()) as maps:
        model(image[None])
    layers = [weights[0].mean(dim=0) for weights in maps.values()]
    flow = itself = torch.eye(*layers[0].shape, device=image.device)
    for attention in layers:                     # (T, T), over heads
        flow = (attention + itself) / 2 @ flow
    grid = rearrange(flow[0, 1:], "(h w) -> 1 1 h w",
                     h=image.shape[1] // model.conv_proj.stride[0])
    heat = F.interpolate(grid, image.shape[1:], mode="bilinear")[0, 0]
    return heat / heat.max()


# %%
def position_similarity(model):
    """Cosine of each patch's position embedding with each other's, figure 7.

    (n, n, n, n): row and column of the one, then row and column of the other.
    """
    places = model.encoder.pos_embedding.detach()[0, 1:]     # (n n, D)
    cosines = F.cosine_similarity(places[:, None], places, dim=2)
    n = isqrt(len(places))
    return rearrange(cosines, "(r c) (h w) -> r c h w", r=n, h=n)


# %%
def nearness(similarity):
    """Correlation of similarity (n, n, n, n) with the distance of two patches, negated.

    1: the nearer, the more alike; 0: the embeddings know nothing of the grid.
    """
    n = len(similarity)
    places = torch.cartesian_prod(*2 * [torch.arange(n)]).float()
    apart = torch.cdist(places, places)
    others = apart > 0
    both = torch.stack([similarity.reshape(n * n, n * n).cpu()[others], -apart[others]])
    return torch.corrcoef(both)[0, 1].item()


# %% [markdown]
# ## What a network knows of images

# %%
def shuffle_patches(images, patch_size):
    """Permute the patches of images (B, C, H, W), those of all in the same way."""
    h, w = (side // patch_size for side in images.shape[2:])
    patches = rearrange(images, "b c (h p) (w q) -> b (h w) c p q", h=h, w=w)
    order = torch.randperm(h * w, generator=torch.Generator().manual_seed(0))
    return rearrange(patches[:, order], "b (h w) c p q -> b c (h p) (w q)", h=h)


# %%
def without_positions(model):
    """The control: the same Transformer, to which the patches are a bag."""
    del model.encoder.pos_embedding
    model.encoder.pos_embedding = 0
    return model


# %%
@dataclass(frozen=True)
class Settings(cli.ImageSettings):
    """Beside our values the paper's, from table 3."""
    epochs: int = 6
    batch_size: int = 32                  # paper: 4096
    lr: float | None = None
    rates: tuple[float, ...] = (0.0025, 0.005, 0.01, 0.02)
    tune: bool = False
    weight_decay: float = 0.05            # paper: 0.1 on JFT-300M, 0.3 on ImageNet
    augment: bool = False    # moved pictures are for the test, a puzzle's seams stay
    size: int = 16
    patch_size: int = cli.flag(4, "height and width of a patch, in pixels", least=2)
    depth: int = 2
    hidden_dim: int = cli.flag(32, "width of the ViT")
    num_heads: int = cli.flag(2, "attention heads")
    # 0.02 (papers/dosovitskiy2021.json#position_std) does not get far in 300 steps
    position_std: float = cli.flag(0.3, "spread of new position embeddings")
    cnn_width: int = cli.flag(6, "width of the CNN", least=2)
    samples: tuple[int, ...] = cli.flag((50, 250, 1400), "training sets compared")
    runs: int = 3

    def __post_init__(self):
        if self.size % self.patch_size:
            raise ValueError(f"--size {self.size} is no multiple of --patch-size "
                             f"{self.patch_size}")
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"--hidden-dim {self.hidden_dim} is no multiple of "
                             f"--num-heads {self.num_heads}")


SETTINGS = {
    "digits": Settings(),
    "cifar10": Settings(epochs=10, batch_size=64, lr=0.003, size=32, depth=4,
                        hidden_dim=48, num_heads=3, position_std=0.02, cnn_width=14,
                        samples=(300, 1000, 3000, 10_000), runs=1, threads=0)}


# %%
def network(kind, args, in_channels):
    """A "vit", a "bag" of patches or a "cnn", all of about equal multiply-adds."""
    if kind == "cnn":
        return CifarResNet(8, args.cnn_width, in_channels=in_channels)
    model = VisionTransformer(
        args.patch_size, args.depth, args.hidden_dim, args.num_heads,
        4 * args.hidden_dim, 10, args.size, in_channels)
    nn.init.normal_(model.encoder.pos_embedding, std=args.position_std)
    return without_positions(model) if kind == "bag" else model


# %%
def sets(args, samples, shuffled=False):
    """The first `samples` training pictures, again and again, and the test set.

    Training sets of any size are so equally long, and take equally many steps.
    """
    train, test = data.load(args, size=args.size)
    again = torch.arange(sizes(args)[-1]) % samples
    parts = [(train, again), (test, torch.arange(len(test)))]
    return [data.Images(
        shuffle_patches(images, args.patch_size) if shuffled else images, labels,
        part.classes, part.name, part.mean, part.std)
        for part, chosen in parts for images, labels in [part[chosen]]]


# %%
def sizes(args):
    """The training sets compared: as many of args.samples as there are samples."""
    train, _ = data.load(args, size=args.size)
    found = [samples for samples in args.samples if samples <= len(train)]
    if not found:
        raise UserError(f"--samples {args.samples[0]} is more than the {len(train):,} "
                        "images for training")
    return found


# %%
def shifted(test, pixels):
    """Move the images of a test set to the right; what comes in is their reflection.

    A border of one value would be an edge that no training image has.
    """
    images, labels = test.tensors
    kept = images[..., :images.shape[-1] - pixels]
    moved = F.pad(kept, (pixels, 0, 0, 0), mode="reflect")
    return data.Images(moved, labels, test.classes, test.name, test.mean, test.std)


# %%
@training.memoize
def trained(kind, samples, shuffled, args, seed):
    """A network Trained on so many samples."""
    return training.train_classifier(
        partial(network, kind, args), args, seed,
        f"vit-{kind}{'-shuffled' * shuffled}-{samples}-{args.data}-{seed}",
        optimizer=partial(torch.optim.AdamW, lr=args.lr, fused=True,
                          weight_decay=args.weight_decay),
        sets=sets(args, samples, shuffled))


# %%
def untrained(args, seed):
    """A ViT before its first step, as `trained` begins with it."""
    train, _ = data.load(args, size=args.size)
    torch.manual_seed(seed)
    return network("vit", args, len(train[0][0])).to(args.device)


# %%
def sides(args):
    """The networks compared: {name: its training}."""
    most = sizes(args)[-1]
    return {
        **{f"{kind}{samples}": (trained, kind, samples, False)
           for kind in ("vit", "cnn") for samples in sizes(args)},
        **{f"{kind}{most}_shuffled": (trained, kind, most, True)
           for kind in ("vit", "cnn")},
        f"bag{most}": (trained, "bag", most, False)}


# %% [markdown]
# ## Figures

# %%
def as_words(picture, patch_size):
    """Draw how an image (H, W) or (H, W, 3) is read: a class token, then patches."""
    n, side, step = len(picture) // patch_size, 52, 68
    patches = rearrange(picture, "(h p) (w q) ... -> (h w) p q ...", h=n, w=n)
    figure, axis = figures.sheet()
    figures.crop(figure, 420)

    def show(patch, x, y, side):
        axis.imshow(patch, extent=(x, x + side, y + side, y), vmin=0, vmax=1,
                    aspect="auto")

    for i, patch in enumerate(patches):
        show(patch, i % n * 240 / n, i // n * 240 / n, 240 / n - 6)
    for line, text in enumerate([
            f"{len(patches)} patches of {patch_size}×{patch_size} pixels",
            "one linear layer embeds each of them",
            "plus a learned vector for each position",
            "with a class token in front: it goes to the classifier"]):
        axis.text(300, 48 + 48 * line, text, va="center_baseline")
    for place in range(min(17, len(patches) + 1)):
        x = place * step
        if place:
            show(patches[place - 1], x, 300, side)
        else:
            axis.text(x + side / 2, 326, "class", ha="center", va="center_baseline",
                      color=figures.color("idea"), weight="bold", size=18)
        axis.text(x + side / 2, 384, f"+{place}", ha="center", size=figures.SMALL,
                  color=figures.color("idea"))
    return figure


# %%
def facts():
    """Numbers on the slides that follow from the networks alone."""
    values = {}
    for build in [vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14]:
        name = build.__name__
        values |= measure.costs(name, build, (1, 3, 224, 224))
        with torch.device("meta"):
            values[f"{name}_patches"] = build().encoder.pos_embedding.shape[1] - 1
    for name in ["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32"]:
        values[f"{name}_accuracy"] = weights.published_accuracy(name)
    for name in ["vit_b_16", "vit_l_16", "vit_h_14"]:   # pre-trained on more images
        values[f"{name}_swag_accuracy"] = weights.published_accuracy(
            name, "IMAGENET1K_SWAG_LINEAR_V1")
    with torch.device("meta"):
        large = vit_b_16(image_size=384)
    values["vit_b_16_384_patches"] = large.encoder.pos_embedding.shape[1] - 1
    values["vit_b_16_384_multiply_adds"] = measure.multiply_adds(
        large, (1, 3, 384, 384))
    return values


# %% [markdown]
# ## Demo

# %% Arguments
if __name__ == "__main__":
    args = cli.begin(SETTINGS)
    if args.weights:
        weights.classify(vit_b_16(), "vit_b_16", args, attention_rollout,
                         title="attention rollout")
        raise SystemExit

# %% An image as words
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    figures.save(as_words(test.picture(0), args.patch_size), "vit-words")

# %% Trainings
if __name__ == "__main__":
    compare.train(sides(args), args)

# %% Inductive bias as a curve
if __name__ == "__main__":
    networks = compare.train(sides(args), args)
    figure, (axis,) = figures.panels(
        xlabel="training samples", ylabel="test accuracy (%)")
    axis.set_xscale("log")
    axis.set_xticks(sizes(args), [f"{n:,}" for n in sizes(args)])
    axis.minorticks_off()
    image = data.load(args, size=args.size)[0][0][0]
    for kind, role, label in [("cnn", "control", "CNN"), ("vit", "idea", "ViT")]:
        costs = measure.costs(kind, partial(network, kind, args, len(image)),
                              (1, *image.shape))
        for key, cost in costs.items():
            results.record(key, cost)
        runs = [training.at_end(networks[f"{kind}{samples}"], "accuracy")
                for samples in sizes(args)]
        figures.band(axis, sizes(args), list(zip(*runs)), role, label, marker="o",
                     clip_on=False)
    figures.label_lines(axis)
    figures.save(figure, "vit-samples")

# %% Moved images
if __name__ == "__main__":
    networks, (_, test) = compare.train(sides(args), args), data.load(
        args, size=args.size)
    pixels = range(args.patch_size + 1)
    figure, (axis,) = figures.panels(
        xlabel=f"shift to the right (pixels of {args.size})",
        ylabel="test accuracy (%)")
    axis.set_xticks(pixels)
    for kind, role, label in [("cnn", "control", "CNN"), ("vit", "idea", "ViT")]:
        runs = [[training.evaluate(model, shifted(test, k), args)["accuracy"]
                 for k in pixels]
                for model, _ in networks[f"{kind}{sizes(args)[-1]}"]]
        figures.band(axis, pixels, runs, role, label)
        for k, values in zip(pixels, zip(*runs)):
            results.record_range(f"{kind}_shift{k}_accuracy", values)
    figures.label_lines(axis)
    figures.annotate(axis, pixels[2], sum(run[2] for run in runs) / len(runs),
                     "neither has seen\na moved image")
    figures.save(figure, "vit-shift")

# %% Images as puzzles
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    _, puzzles = sets(args, args.samples[0], shuffled=True)
    shown = range(8)
    figures.save(figures.images({
        "as it is": [test.picture(i) for i in shown],
        "shuffled": [puzzles.picture(i) for i in shown]}), "vit-puzzles")

# %% Trained on puzzles
if __name__ == "__main__":
    networks, most = compare.train(sides(args), args), sizes(args)[-1]
    figure, (axis,) = figures.panels(ylabel="test accuracy (%)")
    axis.set_xticks([0, 1], ["images", "puzzles"])
    for kind, role, label in [("cnn", "control", "CNN"), ("vit", "idea", "ViT"),
                              ("bag", "muted", "ViT without positions")]:
        pictures = networks[f"{kind}{most}"]
        # a bag of patches is the same, shuffled or not
        puzzles = networks.get(f"{kind}{most}_shuffled", pictures)
        runs = zip(*(training.at_end(trained, "accuracy")
                     for trained in (pictures, puzzles)))
        figures.band(axis, [0, 1], list(runs), role, label, marker="o", clip_on=False)
    figures.label_lines(axis)
    figures.save(figure, "vit-shuffled")

# %% Where it looks
if __name__ == "__main__":
    _, test = data.load(args, size=args.size)
    most = sizes(args)[-1]
    model = trained("vit", most, False, compare.chosen(f"vit{most}", args),
                    args.seed).model
    rows, shown = {"image": [test.picture(i) for i in range(8)]}, test.first(8)
    for title, looking in [("trained", model),
                           ("untrained", untrained(args, args.seed))]:
        heats = [attention_rollout(looking, image.to(args.device)).cpu()
                 for image, _ in shown]
        rows[title] = [figures.heated(picture, heat)
                       for picture, heat in zip(rows["image"], heats)]
    figures.save(figures.images(rows), "vit-rollout")

# %% Position embeddings
if __name__ == "__main__":
    networks = compare.train(sides(args), args)[f"vit{sizes(args)[-1]}"]
    maps = []
    for title, role, models in [
            ("untrained", "control", [untrained(args, seed) for seed in args.seeds]),
            ("trained", "idea", [model for model, _ in networks])]:
        similarity = [position_similarity(model) for model in models]
        results.record_range(f"{title}_nearness", list(map(nearness, similarity)))
        tiles = F.pad(similarity[0].cpu(), (0, 1, 0, 1), value=float("nan"))
        maps.append(figures.Heatmap(
            title, rearrange(tiles, "r c h w -> (r h) (c w)"), role=role))
    figures.save(figures.heatmaps([maps]), "vit-positions")

# %% What this run measured
if __name__ == "__main__":
    results.save(facts())
