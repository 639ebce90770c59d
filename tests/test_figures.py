"""lab.figures, lab.diagrams and lab.look: what every figure keeps to."""

import io
import json
import re
import subprocess
import sys
import types
import warnings
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from torch import nn

from lab import diagrams, figures, flow, look

ROOT = Path(__file__).resolve().parents[1]
PROVENANCE = {"module": "toy", "command": "python code/toy.py <a> & 'b'", "seed": 0}


class Branches(nn.Module):
    """A residual block beside a pooling."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
                                  nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 8, 1))
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x, mask=None):
        return torch.cat([self.body(x) + x, self.pool(x)], dim=1)


class Small(nn.Module):
    """Pools with a function, so that a diagram must see it in the shapes."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 84)
        self.fc2 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Residual(nn.Module):
    def __init__(self, channels, stride=1, shortcut=True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels // stride, channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels // stride, channels, 1, stride) \
            if shortcut and stride > 1 else nn.Identity() if shortcut else None

    def forward(self, x):
        residual = self.conv2(F.relu(self.conv1(x)))
        return F.relu(residual + self.shortcut(x) if self.shortcut else residual)


def residual_network(**options):
    return nn.Sequential(nn.Sequential(Residual(8, **options), Residual(8, **options)),
                         nn.Sequential(Residual(16, 2, **options),
                                       *(Residual(16, **options) for _ in range(8))))


def deep_network(groups):
    layers = []
    for channels in [64 // 2 ** group for group in range(groups)]:
        layers += 2 * [nn.Conv2d(channels, channels, 3, padding=1)]
        layers += [nn.Conv2d(channels, channels // 2, 1), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


def runs(start, end, seeds=3):
    """Curves from start to end percent, as shares."""
    generator = np.random.default_rng(0)
    values = end + (start - end) * np.exp(-np.arange(8) / 1.5)
    return [list((values + generator.normal(0, 1, 8)) / 100) for _ in range(seeds)]


def digit(side=28):
    return torch.linspace(0, 1, side * side).reshape(1, side, side)


def curves():
    return figures.curves({
        "plain": ("control", {"56 layers": runs(90, 68), "20 layers": runs(75, 4)}),
        "shortcuts": ("idea", {"56 layers": runs(70, 3), "20 layers": runs(45, 3)}),
    }, ylabel="training error (%)", note=("plain", "56 layers", 5, "deeper is\nworse"))


def own_plot():
    figure, axes = figures.panels(2, titles=["σ² ≤ μ → √x", "3×3 − 1 ≈ 2"],
                                  xlabel="x", roles=["idea"], sharey=False)
    for axis in axes:
        for k in range(5):
            axis.plot([0, 1, 2], [0, 1, 1 + k / 100], label=f"line {k}")
        figures.label_lines(axis)
    return figure


def scattered():
    figure, (axis,) = figures.panels(xlabel="multiply-adds", ylabel="accuracy (%)")
    axis.set(xscale="log", xlim=(1e5, 2e8), ylim=(50, 90))
    figures.points(axis, {"LeNet-5": (1e5, 50), "ResNet-50": (2.5e7, 76),
                          "Inception v3": (2.4e7, 77), "ConvNeXt-B": (9e7, 84),
                          "ConvNeXt-L": (1.9e8, 84.3)}, {"LeNet-5": "muted"})
    return figure


def cells_with_numbers():
    figure, axis = figures.sheet((400, 300))
    figures.cells(axis, torch.tensor([[-1.0, 0, 1], [0.5, float("nan"), -0.2]]), 10, 60,
                  60, digits=1, frames=[(1, 2)])
    figures.block(axis, torch.rand(2, 3, 2) > 0.5, 260, 120, 24, names="BC")
    return figure


def confused():
    matrix = torch.diag(torch.tensor([980, 1035, 870]))
    matrix[0, 2] = 12
    return figures.confusion(matrix, ["T-shirt/top", "trouser", "ankle boot"])


FIGURES = {
    "curves": curves,
    "one epoch": lambda: figures.curves({"": (["idea", "control"], {
        "test": [[3]], "training": [[3.1]]})}, "error (%)", size=figures.BESIDE),
    "own plot": own_plot,
    "images": lambda: figures.images(
        [digit(8)] * 11, [f"{k} → {k + 1}" for k in range(11)], highlight=[3]),
    "no images": lambda: figures.images([]),
    "named rows": lambda: figures.images({"before": [digit(8)[0]] * 4,
                                          "after": [digit(8)[0]] * 4}),
    "filters": lambda: figures.filters(torch.linspace(-1, 1, 6 * 25).view(6, 1, 5, 5)),
    "many filters": lambda: figures.filters(torch.ones(16, 6, 3, 3)),
    "RGB filters": lambda: figures.filters(torch.ones(16, 3, 7, 7)),
    "feature maps": lambda: figures.feature_maps(
        Small(), digit(), ["conv1", "pool", "conv2", "fc1", "fc2"]),
    "confusion": confused,
    "points": scattered,
    "prediction": lambda: figures.prediction(
        torch.rand(3, 8, 8), torch.rand(8, 8),
        [("American Staffordshire terrier", 1.0), ("hen", 0.0), ("cup", 0.0)]),
    "bars": lambda: figures.bars({"ours": 25_557_032, "VGG-16": 138_357_544}, "weights",
                                 roles={"ours": "idea"}),
    "architecture": lambda: figures.architecture(
        Small(), digit()[None], title="LeNet-5",
        groups={"finds": ("conv1", "pool"), "decides": ("fc1", "fc2")}),
    "deep architecture": lambda: figures.architecture(
        deep_network(4), (1, 64, 64, 64)),
    "residual architecture": lambda: figures.architecture(
        residual_network(), (1, 8, 32, 32)),
    "grouped bars": lambda: figures.grouped_bars(
        {"a [MASK] film .": [("good", 0.41), ("dull", 0.03)]}, {"dull": "control"}),
    "dots": lambda: figures.dots(
        {"3×3": ("control", [0.7, 0.71, 0.75], ["1.20 M"]),
         "1×5, 5×1": ("idea", [0.72, 0.74, 0.7], ["0.84 M"])},
        "test accuracy (%)", ["multiply-adds"], span=0.2),
    "heat maps": lambda: figures.heatmaps([[
        figures.Heatmap("additive: 99 %", torch.eye(4), [*"abcd"], [*"dcba"], "idea",
                        frames=[(0, 3)], wrong=[1]),
        figures.Heatmap("no attention", -torch.eye(4), [*"abcd"], [*"dcba"])]],
        "framed: where the letter stands"),
    "upright labels": lambda: figures.heatmaps([[figures.Heatmap(
        "", torch.rand(9, 12), ["neunhundert"] * 9, ["twenty-three"] * 12)]]),
    "table": lambda: figures.table(
        {"text": ["[CLS]", "good", "soup"], "shown": ["[CLS]", "[MASK]", "soup"]},
        {(1, 1): ("control", 0.15), (0, 1): ("idea", 0.9)}),
    "cells": cells_with_numbers,
    "stacks": lambda: figures.stacks([
        [("source", "S tokens", "muted"), ("embedding", "+ positions", "purple"),
         (6, [("self-attention", "8 heads of 64"), ("feed-forward", "512 → 2048")])],
        [("target so far", "T tokens", "muted"), ("embedding", "+ positions", "purple"),
         (6, [("self-attention", "to what is before"), ("cross-attention", "8 heads"),
              ("feed-forward", "512 → 2048")]),
         ("next token", "37,000 logits", "purple")]],
        memory=["memory, S × 512:", "keys and values"]),
    "flow": lambda: figures.flow(Branches(), (1, 8, 16, 16)),
    "flow to the right": lambda: figures.flow(
        Branches(), (1, 8, 16, 16), down=False, size=(756, 240)),
}


def svg(figure):
    return figures._render(figure, "svg", json.dumps(PROVENANCE)).decode()


def texts(figure):
    """(words, box in pixels, size) of every text that is drawn."""
    from matplotlib.text import Text
    drawn, draw = {}, Text.draw

    def keep(text, renderer):
        if text.get_text() and text.get_visible():
            drawn[text] = text.get_size()
        draw(text, renderer)

    with mock.patch.object(Text, "draw", keep):
        figure.savefig(io.BytesIO(), format="svg")
    return [(text.get_text(), Text.get_window_extent(text), size)
            for text, size in drawn.items()]


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_figure(draw):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw()
        first = svg(figure)
    torch.manual_seed(0)
    assert svg(draw()) == first, "drawn twice, it differs"
    wide, high = figure.get_size_inches() * 72
    assert (wide, high) <= figures.FULL
    assert f'width="{wide:g}" height="{high:g}"' in first
    assert "<text" not in first, "text must be paths"
    found = texts(figure)
    for words, box, size in found:
        assert size >= 14, words
        assert -1 <= box.x0 and box.x1 <= wide + 1, f"{words!r} leaves the figure"
        assert -1 <= box.y0 and box.y1 <= high + 1, f"{words!r} leaves the figure"
    for (one, a, _), (two, b, _) in combinations(found, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 1 or down < 1, f"{one!r} over {two!r}"


@pytest.fixture
def user_settings():
    """Change Matplotlib's settings as a user may; they are ours again afterwards."""
    from matplotlib import style

    def set_up(settings):
        look._apply.cache_clear()
        style.use(settings)

    yield set_up
    look._apply.cache_clear()
    look._apply()


@pytest.mark.parametrize("settings", [
    "classic", "dark_background", "ggplot", {"text.usetex": True}, {"font.size": 40},
    {"savefig.dpi": 10, "savefig.bbox": "tight", "savefig.format": "pdf"},
    {"figure.constrained_layout.use": True, "figure.dpi": 300,
     "path.sketch": (1, 9, 1)},
], ids=str)
def test_a_users_settings_change_no_figure(user_settings, settings):
    def draw():
        figure, axes = figures.panels(2, xlabel="epoch", ylabel="error", titles="ab")
        for axis in axes:
            axis.plot([3, 2, 4], label="$x^2$")
            axis.scatter([0, 1], [1, 2])
            figures.label_lines(axis)
        return figures._render(figure, "svg", ""), figures._render(figure, "png", "")

    expected = draw()
    user_settings(settings)
    assert draw() == expected


def test_labels_stand_beside_the_ends_of_their_lines():
    figure = own_plot()
    figure.draw_without_rendering()
    for axis in figure.axes:
        for line, label in zip(axis.lines, axis.texts, strict=True):
            end = axis.transData.transform(line.get_xydata()[-1])
            box = label.get_window_extent()
            assert label.get_text() == line.get_label()
            assert label.get_color() == line.get_color()
            assert 4 < box.x0 - end[0] < 14
            assert abs((box.y0 + box.y1) / 2 - end[1]) < 70


def test_note_covers_no_line():
    from matplotlib.text import Text
    figure, (axis,) = figures.panels()
    for k in range(8):
        axis.plot([0, 1, 2], [5, 1 + k / 4, 0], label=f"line {k}")
    figures.label_lines(axis)
    figures.annotate(axis, 0.5, 3, "see here:\nall of them fall")
    figure.draw_without_rendering()
    box = Text.get_window_extent(axis.texts[-1])
    for line in axis.lines:
        points = figures._points(line)
        assert not ((points > (box.x0, box.y0)) & (points < (box.x1, box.y1))
                    ).all(axis=1).any()
    assert axis.bbox.contains(box.x0, box.y0) and axis.bbox.contains(box.x1, box.y1)


def test_curves_of_a_quick_or_diverged_run():
    nan = float("nan")
    lost = {"one": [[2.0, nan, nan]], "none": [[nan] * 3]}
    figure = figures.curves({"": ("idea", lost)}, "loss",
                            note=("", "one", 1, "diverged"))
    assert [words for words, *_ in texts(figure)].count("one") == 1
    quick = figures.curves({"": ("idea", {"one": [[2.0]]})}, "loss",
                           note=("", "one", 5, "only seen in a long run"))
    assert "only seen in a long run" in {words for words, *_ in texts(quick)}


def test_spread_keeps_order_gap_and_bounds():
    generator = np.random.default_rng(0)
    for _ in range(200):
        wanted = generator.uniform(0, 100, generator.integers(1, 8))
        places = look.spread(wanted, 12, 0, 100)
        assert (np.argsort(places) == np.argsort(wanted)).all()
        assert (np.diff(np.sort(places)) > 12 - 1e-9).all()
        assert min(places) > -1e-9 and max(places) < 100 + 1e-9
    assert look.spread([10, 50], 12) == [10, 50]
    assert look.spread([50, 50], 12) == [44, 56]


# ---- colours

def test_dark_variant_keeps_role_and_strength():
    light, dark = look.PALETTE["light"], look.PALETTE["dark"]
    assert light.keys() == dark.keys()
    for role in light:
        assert look.darken(f"fill: {light[role]}") == f"fill: {dark[role]}"
    for role in ("idea", "control", "muted"):
        for strength in (0.16, 0.27, 0.42, 0.8):
            found = look._rgb(look._to_dark(look.color(role, strength)))
            wanted = look._rgb(look._mix(dark, role, strength))
            assert max(abs(a - b) for a, b in zip(found, wanted)) <= 12
    assert look.darken('id="#0b67b2" href="#0b67b2"') == 'id="#0b67b2" href="#0b67b2"'


def test_dark_variant_leaves_pictures_and_recolours_drawings():
    photo = svg(figures.images([digit(8)]))
    drawing = svg(figures.filters(torch.linspace(-1, 1, 25).view(1, 1, 5, 5)))
    assert embedded(look.darken(photo)) == embedded(photo)
    assert embedded(look.darken(drawing)) != embedded(drawing)


def embedded(text):
    return re.findall(r"base64,([^\"]+)", text)


def test_dark_variant_has_no_colour_of_the_light_one():
    for name in ("curves", "confusion", "residual architecture"):
        dark = look.darken(svg(FIGURES[name]()))
        for role, value in look.PALETTE["light"].items():
            assert f": {value}" not in dark, f"{role} in {name}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_colours_can_be_read(theme):
    palette = look.PALETTE[theme]
    for role in palette.keys() - {"paper", "panel", "lines"}:
        least = 3 if role == "control" else 4.5  # vermilion is for large text
        assert contrast(palette[role], palette["paper"]) >= least, role


def contrast(one, two):
    def luminance(text):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
                  for c in (value / 255 for value in look._rgb(text))]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted([luminance(one), luminance(two)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


# ---- fonts

def test_our_own_fonts_are_used():
    from matplotlib import font_manager
    figures.panels()
    for weight in ("normal", "bold"):
        font = font_manager.FontProperties(family=look.FAMILY, weight=weight)
        found = Path(font_manager.findfont(font, fallback_to_default=False))
        assert found.parent == look.FONTS
        assert ("Bold" in found.name) == (weight == "bold")
    text = svg(own_plot())
    assert "InterFigures-Regular-" in text and "InterFigures-Bold-" in text


@pytest.mark.parametrize("style", ["Regular", "Bold"])
def test_fonts_have_the_characters_of_the_field(style):
    from matplotlib.ft2font import FT2Font
    known = FT2Font(str(look.FONTS / f"InterFigures-{style}.ttf")).get_charmap()
    needed = "×−→←↑↓·≤≥≈≠σμαβεθλΣΔ√±²³½…–—‘’“”∞∂äöüßéşŷ✓"
    assert not {character for character in needed if ord(character) not in known}


def test_a_character_without_a_glyph_warns_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, (axis,) = figures.panels(titles=["中"])
        axis.plot([0, 1], label="中")
        figures.label_lines(axis)
        svg(figure)


def test_fonts_of_the_browser():
    css = (look.FONTS / "fonts.css").read_text()
    used = set(re.findall(r'url\("([^"]+)"\)', css))
    assert used == {path.name for path in look.FONTS.glob("*.woff2")}
    families = set(re.findall(r'font-family: "([^"]+)"', css))
    assert families == {"Inter", "JetBrains Mono"}


# ---- saving

@pytest.fixture
def run(tmp_path, monkeypatch):
    run = types.SimpleNamespace(
        module="toy", name="demo", out=tmp_path, display=False, data="digits", seed=0,
        command=PROVENANCE["command"], provenance=lambda: PROVENANCE)
    monkeypatch.setattr("lab.runs._current", run)
    return run


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_save_writes_both_variants_with_provenance(run, capsys):
    figures.save(own_plot(), "toy-curves")
    assert files(run.out) == ["toy-curves.dark.svg", "toy-curves.svg"]
    for name in files(run.out):
        tree = ElementTree.parse(run.out / "img" / name)
        (said,) = tree.iter("{http://purl.org/dc/elements/1.1/}description")
        assert json.loads(said.text) == PROVENANCE
        assert tree.getroot().get("viewBox") == "0 0 1168 520"
    assert "wrote" in capsys.readouterr().out


def test_save_png_with_provenance(run):
    from PIL import Image
    figures.save(figures.images([digit(8)]), "toy-photo", format="png")
    assert files(run.out) == ["toy-photo.png"]
    with Image.open(run.out / "img" / "toy-photo.png") as image:
        assert json.loads(image.text["Description"]) == PROVENANCE
        assert image.width == 2 * 1168


def test_save_names_the_data_of_other_runs(run):
    run.name = "mnist"
    figures.save(own_plot(), "toy-curves")
    assert files(run.out) == ["toy-curves-mnist.dark.svg", "toy-curves-mnist.svg"]


def test_save_shows_in_a_notebook_and_writes_nothing(run, monkeypatch):
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, "display",
                        lambda *figure, **options: shown.append((*figure, options)))
    run.display = True
    figures.save(own_plot(), "toy-curves")
    assert files(run.out) == []
    (figure, options), = shown
    assert "<svg" in figure.data and options == {"metadata": {"figure": "toy-curves"}}


def test_save_without_a_run_says_what_to_do(monkeypatch):
    monkeypatch.setattr("lab.runs._current", None)
    with pytest.raises(RuntimeError, match=r"no run has begun: cli.begin"):
        figures.save(own_plot(), "x")


@pytest.mark.parametrize("broken", ["darken", "_render"])
def test_failed_save_leaves_the_earlier_figure(run, monkeypatch, broken):
    figures.save(own_plot(), "toy-curves")
    before = {name: (run.out / "img" / name).read_bytes() for name in files(run.out)}

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(figures, broken, fail)
    with pytest.raises(MemoryError):
        figures.save(curves(), "toy-curves")
    assert {name: (run.out / "img" / name).read_bytes()
            for name in files(run.out)} == before


def test_interrupted_write_leaves_the_earlier_figure(run, monkeypatch):
    figures.save(own_plot(), "toy-curves")
    before = (run.out / "img" / "toy-curves.svg").read_bytes()

    def half(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        figures.save(curves(), "toy-curves")
    assert (run.out / "img" / "toy-curves.svg").read_bytes() == before
    assert files(run.out) == ["toy-curves.dark.svg", "toy-curves.svg"]


# ---- what is drawn of a model

def summary(model, shape):
    return [(stage.name, stage.count, stage.shape)
            for stage in diagrams._summary(diagrams.trace(model, shape))]


def test_summary_has_layers_and_pooling_by_functions():
    assert summary(Small(), (1, 1, 28, 28)) == [
        ("conv1", 1, (6, 28, 28)), ("pool", 1, (6, 14, 14)), ("conv2", 1, (16, 10, 10)),
        ("pool", 1, (16, 5, 5)), ("fc1", 1, (84,)), ("fc2", 1, (10,))]


def test_summary_of_resnet18_collapses_blocks():
    from torchvision.models import resnet18
    root = diagrams.trace(resnet18(), (1, 3, 64, 64))
    stages = diagrams._summary(root)
    assert [(stage.name, stage.count) for stage in stages] == [
        ("conv1", 1), ("maxpool", 1), ("layer1", 2), ("layer2", 2), ("layer3", 2),
        ("layer4", 2), ("avgpool", 1), ("fc", 1)]
    assert [stage.shortcuts for stage in stages[2:6]] == [
        ["same", "same"]] + 3 * [["projected", "same"]]
    assert stages[5].shape == (512, 2, 2)


def test_summary_joins_equal_layers_of_a_sequence():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
              nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(),
              nn.Linear(32, 32), nn.Dropout(), nn.Linear(32, 32), nn.Linear(32, 9)]
    assert summary(nn.Sequential(*layers), (1, 3, 4, 4)) == [
        ("conv", 2, (8, 4, 4)), ("pool", 1, (8, 2, 2)), ("conv", 1, (8, 2, 2)),
        ("fc", 2, (32,)), ("fc", 1, (9,))]


def test_arcs_only_where_a_block_adds_its_input():
    def arcs(**options):
        root = diagrams.trace(residual_network(**options), (1, 8, 16, 16))
        return [arc for stage in diagrams._summary(root) for arc in stage.shortcuts]

    assert arcs() == ["same", "same", "projected"] + 8 * ["same"]
    assert set(arcs(shortcut=False)) == {""}


def test_chosen_layers_and_unknown_ones():
    figure = figures.architecture(Small(), (1, 1, 28, 28), layers=["conv2", "fc2"])
    assert {"input", "conv2", "fc2"} <= {words for words, *_ in texts(figure)}
    with pytest.raises(ValueError, match="no layer 'conv9' .* conv1, pool"):
        figures.architecture(Small(), (1, 1, 28, 28), layers=["conv9"])
    with pytest.raises(ValueError, match="no stage 'x'; there are input, conv1"):
        figures.architecture(Small(), (1, 1, 28, 28), groups={"all": ("conv1", "x")})
    with pytest.raises(ValueError, match="16 stages are too many .* layers="):
        figures.architecture(deep_network(5), (1, 64, 64, 64))
    with pytest.raises(ValueError, match="no layer 'conv9'; there are conv1, pool"):
        figures.feature_maps(Small(), digit(), ["conv9"])


def test_a_flow_has_what_forward_calls():
    """A norm and a ReLU stand in the box of what they follow; a sum is a sign."""
    boxes = flow._boxes(Branches(), [(1, 8, 16, 16)], ())
    assert [(box.lines, box.shape) for box in boxes] == [
        (["x"], (8, 16, 16)), (["3×3 conv", "norm", "ReLU"], (8, 16, 16)),
        (["1×1 conv"], (8, 16, 16)), (["+"], ()), (["3×3 max pool"], (8, 16, 16)),
        (["join"], (16, 16, 16))]
    x, first, second, plus, pool, join = boxes
    assert [box.sources for box in boxes] == [
        [], [x], [first], [second, x], [x], [plus, pool]]
    boxes = flow._boxes(Branches(), [(1, 8, 16, 16)], (nn.Sequential,))
    assert [box.lines for box in boxes][:2] == [["x"], ["body"]]


def test_a_flow_without_room_says_what_to_do():
    with pytest.raises(ValueError, match="5 layers are too many for 90 pixels"):
        figures.flow(Branches(), (1, 8, 16, 16), size=(332, 90))
    with pytest.raises(ValueError, match="side by side need .* 96: .*down=False"):
        figures.flow(Branches(), (1, 8, 16, 16), size=(100, 500))


def test_a_model_is_left_as_it_was():
    model = Small().train()
    figures.flow(model, (1, 1, 28, 28), size=(332, 800))
    assert next(model.parameters()).device.type == "cpu"
    figures.architecture(model, (1, 1, 28, 28))
    figures.feature_maps(model, digit(), ["conv1"])
    assert model.training
    assert not any(part._forward_hooks or part._forward_pre_hooks
                   for part in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


def test_feature_maps_are_those_of_the_model():
    model, image = Small(), digit()
    (name, output), (again, second) = figures._outputs(model, image, ["pool", "fc2"])
    assert (name, again) == ("pool", "fc2") and output.shape == (1, 6, 14, 14)
    with torch.no_grad():
        assert torch.equal(second, model(image[None]))


def test_heat_tints_where_it_is():
    picture, heat = torch.rand(5, 5), torch.zeros(5, 5)
    heat[1, 2] = 1
    tinted = figures.heated(picture, heat)
    red, green, blue = tinted[1, 2]
    assert red > green > blue
    cold = np.delete(tinted.reshape(25, 3), 7, axis=0)
    assert np.ptp(cold, axis=1).max() == 0 and tinted.min() >= 0 and tinted.max() <= 1


def test_band_spans_all_runs():
    figure, (axis,) = figures.panels()
    figures.band(axis, [1, 2], [[1, 5], [3, 4], [2, 3]], "idea", "ours")
    assert axis.lines[0].get_ydata().tolist() == [2, 4]
    corners = axis.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners} == {(1, 1), (1, 3), (2, 3), (2, 5)}


def test_cells_are_blue_above_zero_vermilion_below_and_clear_at_zero():
    colors = figures.signed(torch.tensor([[1.0, -0.5, 0.0, float("nan"), 7.0]]))[0]
    assert np.allclose(colors[:, 3], [1, 0.5, 0, 0, 1])
    assert np.allclose(colors[0, :3], to_rgb(figures.color("idea")))
    assert np.allclose(colors[1, :3], to_rgb(figures.color("control")))


def test_an_axis_in_percent_takes_shares():
    figure, (axis,) = figures.panels(ylabel="test accuracy (%)", xlabel="epoch")
    axis.plot([1, 2], [0.25, 0.75])
    figure.canvas.draw()
    assert "50" in [label.get_text() for label in axis.get_yticklabels()]


def test_an_axis_in_percent_refuses_percent(run):
    figure, (axis,) = figures.panels(ylabel="test accuracy (%)")
    axis.plot([1, 2], [25, 75])
    with pytest.raises(ValueError, match="takes shares"):
        figures.save(figure, "toy")


def test_confusion_shows_every_count():
    assert {"980", "1,035", "870", "12"} <= {words for words, *_ in texts(confused())}


def test_import_is_light():
    code = ("import sys; sys.path.insert(0, 'code'); from lab import figures; "
            "print({'matplotlib', 'PIL', 'torchvision'} & set(sys.modules))")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True,
                         text=True, check=True, timeout=120).stdout
    assert out.strip() == "set()"
