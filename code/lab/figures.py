"""Figures in one look (lab.look), saved with where they came from."""

import io
import json
import sys
from itertools import zip_longest

from lab import results, runs, terminal
from lab.charts import bars, box, confusion, grouped_bars, points
from lab.diagrams import architecture, block
from lab.flow import flow
from lab.heatmaps import Heatmap, cells, frame, heatmaps, signed, table
from lab.look import (
    BESIDE,
    FULL,
    HEAVY,
    PALETTE,
    SMALL,
    TEXT,
    THIN,
    TITLE,
    array,
    as_image,
    canvas,
    color,
    crop,
    darken,
    quietly,
    settle,
    sheet,
    spread,
    stretch,
    width,
)
from lab.stacks import stacks

__all__ = [
    "BESIDE", "FULL", "HEAVY", "PALETTE", "SMALL", "TEXT", "THIN", "TITLE",
    "Heatmap", "annotate", "architecture", "band", "bars", "block", "cells",
    "color", "confusion", "crop", "curves", "dots", "feature_maps", "filters",
    "flow", "frame", "grouped_bars", "heated", "heatmaps", "images", "label_lines",
    "panels", "points", "prediction", "save", "sheet", "signed", "stacks", "table",
    "width",
]


def panels(n=1, size=FULL, xlabel="", ylabel="", titles=(), roles=(), sharey=True):
    """A figure with n empty axes side by side, in our look.

    titles and roles ("idea", "control", …) name and colour them. An axis whose label
    ends in (%) takes shares, 0..1. Returns the figure and the list of axes. Draw
    lines with label=…, then call label_lines.
    """
    from matplotlib.ticker import PercentFormatter

    figure = canvas(size)
    figure.set_layout_engine("constrained", wspace=0.04)
    axes = list(figure.subplots(1, n, sharey=sharey, squeeze=False)[0])
    axes[0].set_ylabel(ylabel)
    for axis in axes:
        axis.set_xlabel(xlabel)
        axis.margins(x=0)
        for side, label in (axis.xaxis, xlabel), (axis.yaxis, ylabel):
            if label.endswith("(%)"):
                side.set_major_formatter(PercentFormatter(1, symbol=""))
    for axis, title, role in zip_longest(axes, titles, roles):
        axis.set_title(title or "", color=color(role or "ink"))
    return figure, axes


def label_lines(axis, size=TEXT):
    """Write each line's label at its right end, none over another.

    Call it when the axis is complete: positions are computed for its final limits.
    """
    settle(axis.figure)
    lines = [line for line in axis.lines
             if not line.get_label().startswith("_") and len(_data(line))]
    ends = [_data(line)[-1] for line in lines]
    heights = [axis.transData.transform(end)[1] for end in ends]
    places = spread(heights, 1.2 * size, axis.bbox.y0, axis.bbox.y1)
    for line, end, height, place in zip(lines, ends, heights, places):
        axis.annotate(
            line.get_label(), end, (9, place - height), textcoords="offset points",
            va="center_baseline", size=size, color=line.get_color(),
            annotation_clip=False,
            weight="bold" if line.get_linewidth() >= HEAVY else "normal")


def annotate(axis, x, y, text, size=TEXT):
    """Say what to see at (x, y): text where it covers no line, and a pointer.

    Call it last, after label_lines, which moves the axis.
    """
    import numpy as np

    settle(axis.figure)
    target = axis.transData.transform((x, y))
    note = axis.annotate(
        text, (x, y), target, textcoords="figure points", size=size,
        linespacing=1.35, va="bottom", color=color("ink"),
        bbox={"facecolor": color("paper"), "edgecolor": "none", "pad": 3},
        arrowprops={"arrowstyle": "-", "color": color("muted"), "linewidth": 1.5,
                    "shrinkA": 2, "shrinkB": 6})
    wide, high = note.get_window_extent().size
    ink = np.concatenate([[target], *(_points(line) for line in axis.lines)])

    def cost(left, bottom):
        nearest = np.clip(ink, (left, bottom), (left + wide, bottom + high))
        room = np.hypot(*(ink - nearest).T).min()
        edge = np.clip(target, (left, bottom), (left + wide, bottom + high))
        away = np.hypot(*(target - edge))
        return 1000 * (room < 6) + 20 * max(0, 24 - room) + abs(away - 60)

    box = axis.bbox
    places = [(left, bottom)
              for left in np.arange(box.x0 + 16, box.x1 - wide - 4, 12)
              for bottom in np.arange(box.y0 + 12, box.y1 - high - 8, 12)]
    note.set_position(min(places, key=lambda place: cost(*place), default=target))


def _data(line):
    """The points of a line, without those that are not finite."""
    import numpy as np

    points = line.get_xydata()
    return points[np.isfinite(points).all(1)]


def _points(line):
    """Points in pixels along a line, close enough together to keep text off it."""
    import numpy as np

    corners = line.get_transform().transform(_data(line))
    steps = np.linspace(0, 1, 40)[:, None]
    return np.concatenate([corners, *(
        a + steps * (b - a) for a, b in zip(corners, corners[1:]))])


def band(axis, x, runs, role, label, **style):
    """The mean over runs (seeds, len(x)) as a line, lowest to highest as a band."""
    import numpy as np

    runs = np.atleast_2d(array(runs))
    axis.fill_between(x, runs.min(0), runs.max(0), linewidth=0, color=color(role),
                      alpha=0.14)
    axis.plot(x, runs.mean(0), label=label, color=color(role), **style)


def curves(comparison, ylabel, xlabel="epoch", note=None, size=FULL):
    """Training curves side by side, the control beside the idea.

    comparison: {title: (role, {label: runs})}, runs a list with one list of values
    per seed; the line is their mean, the band spans lowest to highest. The first
    label of a panel is heavy. A list of roles gives each label its own colour.
    note: (title of a panel, label, epoch, text).
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    of_panels = [roles if isinstance(roles, str) else None
                 for roles, _ in comparison.values()]
    figure, axes = panels(len(comparison), size, xlabel=xlabel, ylabel=ylabel,
                          titles=list(comparison), roles=of_panels)
    for axis, (roles, series) in zip(axes, comparison.values()):
        if isinstance(roles, str):
            roles = [roles] * len(series)
        for k, (role, (label, values)) in enumerate(zip(roles, series.items())):
            values = np.atleast_2d(np.asarray(values, float))
            epochs = np.arange(1, values.shape[1] + 1)
            band(axis, epochs, values, role, label, linewidth=THIN if k else HEAVY,
                 alpha=0.65 if k else 1, marker="o" if len(epochs) == 1 else "",
                 clip_on=False, zorder=3 if k else 4)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    high = axes[0].get_ylim()[1]
    if 0 <= min(axis.dataLim.y0 for axis in axes) < high / 3:
        axes[0].set_ylim(-0.02 * high, high)
    for axis in axes:
        label_lines(axis)
    if note:
        title, label, epoch, text = note
        axis = axes[list(comparison).index(title)]
        line = next(line for line in axis.lines if line.get_label() == label)
        epoch = min(epoch, len(line.get_xdata()))  # a quick run has only one
        annotate(axis, epoch, line.get_ydata()[epoch - 1], text)
    return figure


def dots(rows, xlabel, columns, span=0.0):
    """Draw a line for each label: its values as points, their median as a bar.

    rows: {label: (role, values, texts)}; the texts stand beside the points, below
    the headings in columns. The axis covers at least `span`: a small difference is
    to look small.
    """
    import numpy as np

    figure, (axis,) = panels(xlabel=xlabel)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", visible=True)
    axis.margins(x=0.06)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.6)
    for row, (role, values, _) in enumerate(rows.values()):
        median = np.median(values)
        style = {"color": color(role), "clip_on": False}
        axis.plot(values, [row] * len(values), "o", alpha=0.55, markersize=9, **style)
        axis.plot(median, row, "|", markersize=26, markeredgewidth=5, **style)
    low, high = axis.get_xlim()
    axis.set_xlim(left=min(low, high - span))
    right = 0
    for heading, texts in zip(columns, zip(*(texts for *_, texts in rows.values()))):
        right += 30 + max(width(figure, text) for text in [heading, *texts])
        for row, text in [(-0.75, heading), *enumerate(texts)]:
            axis.annotate(
                text, (1, row), (right, 0), xycoords=axis.get_yaxis_transform(),
                textcoords="offset points", ha="right", va="center_baseline",
                color=color("muted" if row < 0 else "ink"),
                annotation_clip=False)
    return figure


def images(pictures, captions=None, columns=None, highlight=(), size=FULL):
    """Draw images in a grid with captions below; those in `highlight` are framed.

    pictures: a list of (H, W), (H, W, 3) or (C, H, W) arrays or tensors with values
    0..1, or {name of a row: list}. captions and highlight (indices) count them
    from left to right, row by row.
    """
    named = isinstance(pictures, dict)
    flat = sum(pictures.values(), []) if named else list(pictures)
    flat = [as_image(picture) for picture in flat]
    figure, axis = sheet(size)
    if not flat:
        axis.text(2, 30, "none", color=color("muted"))
        crop(figure, 48)
        return figure
    left = max(width(figure, name) for name in pictures) + 20 if named else 0
    gap, below = 14, 28 if captions else 0
    aspect = flat[0].shape[0] / flat[0].shape[1]

    def wide(columns):  # of an image, with this number of columns
        lines = len(pictures) if named else -(-len(flat) // columns)
        high = (size[1] - 6 - (lines - 1) * gap) / lines - below
        return min((size[0] - 6 - left - (columns - 1) * gap) / columns, high / aspect)

    if named:
        columns = max(len(row) for row in pictures.values())
    columns = columns or max(range(1, len(flat) + 1), key=wide)
    w, h = wide(columns), wide(columns) * aspect
    rows = list(pictures.values()) if named else [
        flat[k : k + columns] for k in range(0, len(flat), columns)]
    cells = [(r, c) for r, row in enumerate(rows) for c in range(len(row))]
    for k, (row, column) in enumerate(cells):
        x, y = left + 3 + column * (w + gap), 3 + row * (h + below + gap)
        marked = k in highlight
        _show(axis, flat[k], x, y, w, h, *(["control", 5] if marked else []))
        if captions:
            axis.text(x + w / 2, y + h + 8, captions[k], size=SMALL, va="top",
                      ha="center", weight="bold" if marked else "normal",
                      color=color("control" if marked else "ink"))
    for row, name in enumerate(pictures if named else ()):
        axis.text(0, 3 + row * (h + below + gap) + h / 2, name, va="center_baseline")
    crop(figure, 6 + len(rows) * (h + below + gap) - gap)
    return figure


def filters(weight, size=BESIDE):
    """Convolution weights (O, I, k, k): blue positive, vermilion negative.

    One row of images where there is one input, a row per output where there are
    several; RGB filters (I = 3) in their colours.
    """
    import numpy as np

    weight = array(weight)
    strongest = np.abs(weight).max() or 1
    if weight.shape[1] == 3:
        return images(list(0.5 + 0.5 * weight.transpose(0, 2, 3, 1) / strongest),
                      size=size)
    figure, axis = sheet(size)
    rows, columns = weight.shape[:2]
    gap, key = 6, 44
    if columns == 1:
        columns = max(range(1, rows + 1), key=lambda n: min(
            size[0] / n, (size[1] - key) / -(-len(weight) // n)))
        rows = -(-len(weight) // columns)
    step = min((size[0] - 4 + gap) / columns, (size[1] - key + gap) / rows)
    for k, kernel in enumerate(weight.reshape(-1, *weight.shape[2:])):
        row, column = divmod(k, columns)
        _show(axis, signed(kernel / strongest), 2 + column * step, 2 + row * step,
              step - gap, step - gap)
    y = rows * step + key / 2
    for x, role, word in ((2, "control", "negative"), (140, "idea", "positive")):
        axis.add_patch(box(x, y - 8, 16, 16, color(role)))
        axis.text(x + 26, y, word, va="center_baseline", color=color(role), size=SMALL)
    crop(figure, y + 16)
    return figure


def feature_maps(model, image, layers, maps=6, size=FULL):
    """What each of `layers` (names of modules) makes of an image (C, H, W).

    A column per call of a layer: its first `maps` channels, each from its lowest
    value (dark) to its highest (light), and its shape. A vector is a strip of cells.
    """
    columns = [("input", tuple(image.shape[-3:]), [as_image(stretch(image))])]
    for name, output in _outputs(model, image, layers):
        values = output[0]
        channels = values[:maps] if values.ndim == 3 else [values[:, None]]
        columns.append((name, tuple(values.shape),
                        [_activations(stretch(channel)) for channel in channels]))

    figure, axis = sheet(size)
    top, foot, gap = 42, 40, 6
    labels = [max(width(figure, name, size=18, weight="bold"),
                  width(figure, _times(shape), size=SMALL))
              for name, shape, _ in columns]

    def arrange(across):  # side of an image and width of each column
        rows = max(-(-len(pictures) // across) for _, _, pictures in columns)
        side = (size[1] - top - foot + gap) / rows - gap
        while True:
            widths = [max(label, 24 if len(shape) == 1 else
                          min(len(pictures), across) * (side + gap) - gap)
                      for label, (_, shape, pictures) in zip(labels, columns)]
            if sum(widths) + 28 * (len(columns) - 1) <= size[0] - 2:
                return side, rows, widths
            side -= 1

    across = max(range(1, maps + 1), key=arrange)
    side, rows, widths = arrange(across)
    high = rows * (side + gap) - gap
    between = (size[0] - 2 - sum(widths)) / (len(columns) - 1)
    x = 1
    for wide, (name, shape, pictures) in zip(widths, columns):
        if len(shape) == 1:
            _show(axis, pictures[0], x + wide / 2 - 12, top, 24, high)
        else:
            _tiles(axis, pictures, x + wide / 2, top + high / 2, across, side, gap)
        axis.text(x + wide / 2, 22, name, ha="center", weight="bold", size=18)
        axis.text(x + wide / 2, top + high + 26, _times(shape), ha="center",
                  size=SMALL, color=color("muted"))
        x += wide + between
    crop(figure, top + high + foot)
    return figure


def _tiles(axis, pictures, x, y, across, side, gap):
    """Draw square images, `across` abreast, centred at the point (x, y)."""
    step, n = side + gap, min(len(pictures), across)
    left, top = x - (n * step - gap) / 2, y - (-(-len(pictures) // n) * step - gap) / 2
    for k, picture in enumerate(pictures):
        _show(axis, picture, left + k % n * step, top + k // n * step, side, side)


def _times(shape):
    return "×".join(map(str, shape))


def _activations(values):
    """Values in 0..1 as colours: dark, our blue, nearly white."""
    import numpy as np
    from matplotlib.colors import to_rgb

    steps = np.array([to_rgb("#0c1826"), to_rgb(color("idea")), to_rgb("#e9f4fd")])
    return np.stack([np.interp(values, [0, 0.5, 1], step) for step in steps.T], -1)


def _outputs(model, image, layers):
    """(name, output) of the model's layers for one image, in the order of calls."""
    import torch

    known = dict(model.named_modules())
    for name in layers:
        if name not in known:
            raise ValueError(f"no layer {name!r}; there are {', '.join(known)[2:]}")
    outputs, training = [], model.training

    def keep(name):
        return lambda module, args, output: outputs.append((name, output.cpu()))

    hooks = [known[name].register_forward_hook(keep(name)) for name in layers]
    model.eval()
    try:
        with torch.no_grad():
            device = next(model.parameters()).device
            model(image.reshape(1, *image.shape[-3:]).to(device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return outputs


def heated(picture, heat):
    """Tint an image (H, W) or (H, W, 3), 0..1, vermilion where heat (H, W) is 1."""
    import numpy as np
    from matplotlib.colors import to_rgb

    picture, heat = as_image(picture), array(heat)[..., None]
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    light = 0.25 + 0.6 * picture.mean(-1, keepdims=True)
    hot = light + (1 - light) * 0.25
    hot = hot * to_rgb(PALETTE["dark"]["control"])
    return (1 - heat) * picture * 0.75 + heat * hot


def prediction(picture, heat, best, title="Grad-CAM of the best answer", size=FULL):
    """Draw an image, the same tinted by `heat`, and the most probable predictions.

    picture (H, W, 3) in 0..1, heat (H, W) in 0..1, best: [(class, probability)],
    the most probable first; title: of the tinted one.
    """
    picture = as_image(picture)
    figure, axis = sheet(size)
    side, gap = 330, 22
    for k, (shown, heading) in enumerate([
            (picture, "the picture"), (heated(picture, heat), title)]):
        x = 2 + k * (side + gap)
        _show(axis, shown, x, 42, side, side)
        axis.text(x, 22, heading, va="center_baseline", size=18, weight="bold")
    left = 2 * (side + gap) + 24
    room = size[0] - left - 84
    for k, (name, share) in enumerate(best):
        y = 42 + k * side / len(best)
        role = "idea" if k == 0 else "muted"
        axis.text(left, y + 14, name, size=18, va="center_baseline")
        axis.add_patch(box(left, y + 28, max(room * share, 2), 22, color(role)))
        axis.text(left + room * share + 10, y + 39, f"{share:.1%}", size=18,
                  va="center_baseline", weight="bold", color=color(role))
    crop(figure, side + 46)
    return figure


def save(figure, name, format="svg"):
    """Write OUT/img/NAME.svg and NAME.dark.svg (or NAME.png), show it in a notebook.

    The file says where it came from: the run's provenance is its description.
    """
    for axis in figure.axes:
        _check_shares(axis)
    current = runs.current()
    data = _render(figure, format, json.dumps(current.provenance()))
    if current.display:
        _display(data, format, name)
        return
    if current.name != "demo":
        name += f"-{current.name}"
    folder = current.out / "img"
    files = {folder / f"{name}.{format}": data}
    if format == "svg":
        files[folder / f"{name}.dark.svg"] = darken(data.decode()).encode()
    for path, content in files.items():
        with results.atomic(path) as temporary:
            temporary.write_bytes(content)
    print(f"wrote {terminal.shown(folder / name)}.{format}")


def _check_shares(axis):
    """ValueError if an axis in percent was given percent, not shares."""
    for label, column in (axis.get_xlabel(), 0), (axis.get_ylabel(), 1):
        if label.endswith("(%)") and any(
                len(_data(line)) and _data(line)[:, column].max() > 1.001
                for line in axis.lines):
            raise ValueError(f"the axis {label!r} takes shares, 0..1, and got more")


def _display(data, format, name):
    if "IPython" in sys.modules:  # it is not where torchrun's further processes run
        from IPython.display import SVG, Image, display

        display(SVG(data) if format == "svg" else Image(data),
                metadata={"figure": name})


def _render(figure, format, description):
    buffer = io.BytesIO()
    metadata = {"Description": description}
    if format == "svg":
        metadata |= {"Date": None, "Creator": None}
    with quietly():
        figure.savefig(buffer, format=format, dpi=144, metadata=metadata)
    if format != "svg":
        return buffer.getvalue()
    wide, high = figure.get_size_inches() * 72
    return buffer.getvalue().replace(b'width="%gpt" height="%gpt"' % (wide, high),
                                     b'width="%g" height="%g"' % (wide, high))


def _show(axis, picture, x, y, wide, high, role="lines", thickness=1.5):
    """Draw an image at (x, y) of a sheet, thinly framed."""
    from matplotlib.patches import Rectangle

    axis.imshow(picture, extent=(x, x + wide, y + high, y), aspect="auto",
                vmin=0, vmax=1)
    axis.add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor=color(role),
                             linewidth=thickness))
