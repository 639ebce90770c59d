"""Matrices as coloured cells: attention weights, embeddings, tables of words."""

from dataclasses import dataclass
from itertools import product

from lab.look import FULL, SMALL, array, color, crop, sheet, width


@dataclass
class Heatmap:
    """One matrix of heatmaps(): values (T, S) in -1..1, blue above zero.

    rows (T) and columns (S): their labels. role: the title's colour. frames: the
    (row, column) of cells to frame. wrong: rows whose label is in the control's colour.
    """
    title: str
    values: object
    rows: list = ()
    columns: list = ()
    role: str = "ink"
    frames: list = ()
    wrong: list = ()


def heatmaps(grid, note="", size=FULL):
    """Draw rows of Heatmaps, and a note below them.

    Column labels stand upright where they are wider than a cell.
    """
    figure, axis = sheet(size)
    room = size[0] / max(map(len, grid))
    height = (size[1] - 30 * bool(note)) / len(grid)
    y = 0
    for row in grid:
        left = 14 + max(_widest(figure, each.rows) for each in row)
        head = 44 * any(each.title for each in row)
        most_rows, most_columns = map(max, zip(*(
            array(each.values).shape for each in row)))
        wide = (room - left - 20) / most_columns
        longest = max(_widest(figure, each.columns) for each in row)
        is_word = any(len(str(word)) > 2 for each in row for word in each.columns)
        upright = is_word and longest > min(wide, (height - head - 40) / most_rows) - 4
        top = y + head + (longest + 14 if upright else 24 * (longest > 0))
        cell = min(wide, (y + height - top - 16) / most_rows)
        for k, each in enumerate(row):
            x = k * room + left
            axis.text(x, y + 20, each.title, weight="bold", va="center_baseline",
                      color=color(each.role))
            cells(axis, each.values, x, top, cell, frames=each.frames)
            _label(axis, each, x, top, cell, upright)
        y = top + cell * most_rows + 16
    axis.text(14, y + 12, note, size=SMALL, va="center_baseline", color=color("muted"))
    crop(figure, y + 28 * bool(note))
    return figure


def cells(axis, values, x, y, side, most=1.0, above="idea", frames=(), digits=None):
    """Draw a matrix as square cells from the corner (x, y) of a sheet on, framed.

    values: blue (or `above`) over zero, vermilion below, full at `most`; NaN is
    clear. frames: the (row, column) of cells to frame. digits: decimals of the
    numbers in the cells; none without.
    """
    values = array(values)
    height, wide = (side * n for n in values.shape)
    axis.imshow(signed(values / most, above), extent=(x, x + wide, y + height, y),
                aspect="auto")
    frame(axis, x, y, wide, height, "muted", 1.5)
    for row, column in frames:
        frame(axis, x + column * side, y + row * side, side, side, thickness=1.5)
    if digits is None:
        return
    for row, column in product(*map(range, values.shape)):
        value = values[row, column]
        axis.text(x + (column + 0.5) * side, y + (row + 0.5) * side,
                  f"{value:.{digits}f}".replace("-", "−"), size=SMALL, ha="center",
                  va="center_baseline",
                  color=color("paper" if abs(value) > 0.6 * most else "ink"))


def frame(axis, x, y, wide, height, role="ink", thickness=3):
    """Draw an empty rectangle."""
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((x, y), wide, height, fill=False, zorder=3,
                             linewidth=thickness, edgecolor=color(role)))


def signed(values, above="idea"):
    """Colours (…, 4) of values in -1..1; the paper shows where they are near zero."""
    import numpy as np
    from matplotlib.colors import to_rgb

    values = array(values)
    below_zero = (values < 0)[..., None]
    colors = np.where(below_zero, to_rgb(color("control")), to_rgb(color(above)))
    strength = np.nan_to_num(np.abs(values)).clip(0, 1)
    return np.concatenate([colors, strength[..., None]], -1)


def table(rows, marked=()):
    """Draw rows of words, column by column, some on a coloured ground.

    rows: {name: words}, all of the same length. marked: {(row, column): (role,
    strength of the ground 0..1)}.
    """
    figure, axis = sheet()
    names, columns, marked = list(rows), list(zip(*rows.values())), dict(marked)
    rooms = [14 + _widest(figure, words, size=18) for words in columns]
    x, height = 24 + _widest(figure, names, size=18), 46
    for row, name in enumerate(names):
        axis.text(0, height * (row + 0.5), name, va="center_baseline", size=18,
                  color=color("muted"))
    for column, (words, room) in enumerate(zip(columns, rooms)):
        for row, word in enumerate(words):
            role, strength = marked.get((row, column), ("ink", 0))
            y = height * (row + 0.5)
            if strength:
                axis.barh(y, room - 4, height - 8, x + 2, color=color(role, strength))
            axis.text(x + room / 2, y, word, size=18, ha="center",
                      va="center_baseline", weight="bold" if strength else "normal",
                      color=color("paper" if strength > 0.55 else role))
        x += room
    crop(figure, height * len(names))
    return figure


def _widest(figure, words, **style):
    return max((width(figure, str(word), **style) for word in words), default=0)


def _label(axis, heatmap, x, y, cell, upright):
    """Write the labels of a Heatmap's rows and columns beside its cells."""
    for i, word in enumerate(heatmap.columns):
        axis.text(x + (i + 0.5) * cell, y - 10, word, ha="center",
                  va="bottom" if upright else "center_baseline",
                  rotation=90 if upright else 0, size=SMALL if cell < 24 else None)
    for i, word in enumerate(heatmap.rows):
        is_wrong = i in heatmap.wrong
        axis.text(x - 8, y + (i + 0.5) * cell, word, ha="right", va="center_baseline",
                  weight="bold" if is_wrong else "normal",
                  size=SMALL if cell < 24 else None,
                  color=color("control" if is_wrong else "ink"))
