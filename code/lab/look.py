"""The look of every figure: colours, sizes, fonts. A pixel here is one on the slide."""

import base64
import contextlib
import functools
import io
import re
import warnings
from pathlib import Path

FULL, BESIDE = (1168, 520), (756, 520)  # width and height: alone, beside prose
FONTS = Path(__file__).parents[2] / "static" / "fonts"
FAMILY = "Inter Figures"
TITLE, TEXT, SMALL = 26, 20, 16  # sizes of type
HEAVY, THIN = 5, 2.6  # widths of lines

# Blue is what the paper proposes, vermilion what it is compared with; the further
# ones are Okabe and Ito's, darkened or lightened until text in them can be read.
PALETTE = {
    "light": {
        "paper": "#ffffff", "ink": "#1b2430", "muted": "#5f6b7a",
        "lines": "#e3e7ec", "panel": "#f6f8fa", "idea": "#0b67b2",
        "control": "#d1570b", "proven": "#0a7d55", "purple": "#a8487f",
        "ochre": "#8f6400", "sky": "#1a76a3",
    },
    "dark": {
        "paper": "#11161d", "ink": "#e8edf3", "muted": "#9aa7b6",
        "lines": "#2a333f", "panel": "#181f29", "idea": "#6cb6f5",
        "control": "#ff9a57", "proven": "#57d3a4", "purple": "#e79cc6",
        "ochre": "#f0c04a", "sky": "#8fd3f4",
    },
}


def color(role, strength=1.0):
    """The light palette's colour, mixed with paper where `strength` is below 1."""
    return _mix(PALETTE["light"], role, strength)


def canvas(size=FULL):
    """An empty figure of `size` pixels in our look."""
    _apply()
    from matplotlib.figure import Figure

    width, height = size
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def sheet(size=FULL):
    """An empty figure with one invisible axis in pixels, y pointing down."""
    figure = canvas(size)
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))
    axis.axis("off")
    return figure, axis


def crop(figure, height):
    """Cut a sheet below `height` pixels."""
    figure.set_figheight(height / 72)
    figure.axes[0].set_ylim(height, 0)


@contextlib.contextmanager
def quietly():
    """Without a warning for each character that no font has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def settle(figure):
    """Lay the figure out, so that positions on it can be computed."""
    engine = figure.get_layout_engine()
    if engine:
        with quietly():
            engine.execute(figure)


def width(figure, text, **style):
    """The width of `text` in pixels."""
    label = figure.text(0, 0, text, **style)
    with quietly():
        pixels = label.get_window_extent().width
    label.remove()
    return pixels


def spread(wanted, gap, low=-float("inf"), high=float("inf")):
    """Positions nearest to `wanted`, in its order, at least `gap` apart, in bounds.

    Least squares: neighbours that are too close are pooled and share their mean.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools = []  # each [mean, count] of wanted positions less the gaps below them
    for rank, i in enumerate(order):
        pools.append([wanted[i] - rank * gap, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            pools[-1][0] = (pools[-1][0] * pools[-1][1] + mean * count) / (
                pools[-1][1] + count)
            pools[-1][1] += count
    means = [mean for mean, count in pools for _ in range(count)]
    high -= gap * (len(wanted) - 1)
    placed = [max(low, min(high, mean)) + gap * k for k, mean in enumerate(means)]
    return [placed[order.index(i)] for i in range(len(wanted))]


def stretch(values):
    """Values moved and scaled to 0..1, as an array."""
    values = array(values)
    low, high = values.min(), values.max()
    return (values - low) / ((high - low) or 1)


def as_image(values):
    """(H, W) or (H, W, 3) in 0..1 of what may come with its channels first."""
    values = array(values).clip(0, 1)
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[-1] != 3:
        values = values.transpose(1, 2, 0)
    return values[..., 0] if values.shape[2:] == (1,) else values


def array(values):
    """A NumPy array of an array, or of a tensor on any device."""
    import numpy as np

    values = values.detach().cpu() if hasattr(values, "detach") else values
    return np.asarray(values, float)


def darken(svg):
    """Recolour a drawing for dark paper: each colour keeps role and strength.

    Embedded images stay as they are, except for those that let the paper through.
    """
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: _to_dark(found[0]), svg)
    return re.sub(r"(?<=base64,)[^\"]+", lambda found: _darken_image(found[0]), svg)


def _darken_image(encoded):
    import numpy as np
    from PIL import Image

    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(encoded))))
    if pixels[..., 3].min() == 255:
        return encoded
    for light in np.unique(pixels[..., :3].reshape(-1, 3), axis=0):
        here = (pixels[..., :3] == light).all(-1)
        pixels[here, :3] = _rgb(_to_dark("#%02x%02x%02x" % tuple(light)))
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    return base64.b64encode(png.getvalue()).decode()


@functools.cache
def _to_dark(light):
    """Where `light` lies between paper and a role's colour, in the dark palette."""
    paper, found = _rgb(PALETTE["light"]["paper"]), []
    wanted = [a - b for a, b in zip(_rgb(light), paper)]
    for role, value in PALETTE["light"].items():
        reach = [a - b for a, b in zip(_rgb(value), paper)]
        length = sum(a * a for a in reach) or 1
        strength = sum(a * b for a, b in zip(wanted, reach)) / length
        strength = min(1, max(0, strength))
        missed = sum((a - strength * b) ** 2 for a, b in zip(wanted, reach))
        found.append((missed, -strength, role))
    _, strength, role = min(found)
    return _mix(PALETTE["dark"], role, -strength)


def _mix(palette, role, strength):
    pairs = zip(_rgb(palette[role]), _rgb(palette["paper"]))
    return "#" + "".join(f"{round(b + strength * (a - b)):02x}" for a, b in pairs)


def _rgb(text):
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


@functools.cache
def _apply():
    from matplotlib import font_manager, rcdefaults, rcParams

    rcdefaults()  # whatever the user has configured
    for path in sorted(FONTS.glob("*.ttf")):
        font_manager.fontManager.addfont(path)
    ink, muted, lines = color("ink"), color("muted"), color("lines")
    rcParams.update({
        "font.family": [FAMILY, "DejaVu Sans"], "font.size": TEXT,
        "text.color": ink, "axes.labelcolor": ink, "axes.titlecolor": ink,
        "axes.edgecolor": muted, "xtick.color": muted, "ytick.color": muted,
        "axes.linewidth": 1.5, "axes.spines.top": False,
        "axes.spines.right": False, "axes.facecolor": "none",
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": lines,
        "grid.linewidth": 1.5, "axes.axisbelow": True, "axes.labelpad": 10,
        "axes.titlesize": TITLE, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.titlepad": 14,
        "xtick.major.size": 6, "ytick.major.size": 6,
        "xtick.major.pad": 7, "ytick.major.pad": 5,
        "xtick.major.width": 1.5, "ytick.major.width": 1.5,
        "figure.facecolor": "none", "savefig.facecolor": "none",
        "figure.constrained_layout.w_pad": 2 / 72,
        "figure.constrained_layout.h_pad": 2 / 72,
        "lines.linewidth": THIN, "lines.solid_capstyle": "round",
        "lines.solid_joinstyle": "round", "lines.dash_capstyle": "round",
        "svg.fonttype": "path", "svg.hashsalt": "figures",
        "image.interpolation": "none", "image.cmap": "gray",
        "image.composite_image": False, "text.hinting": "none",
        "mathtext.fontset": "custom", "mathtext.rm": FAMILY,
        "mathtext.it": FAMILY, "mathtext.bf": f"{FAMILY}:bold",
        "mathtext.cal": FAMILY, "mathtext.sf": FAMILY, "mathtext.tt": FAMILY,
        "axes.prop_cycle": _cycle(),
    })


def _cycle():
    from cycler import cycler

    roles = ["idea", "control", "proven", "purple", "ochre", "sky"]
    return cycler(color=[color(role) for role in roles])
