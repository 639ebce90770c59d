"""Stacks of layers: boxes from left to right, repeated layers in a frame."""

from lab.look import color, sheet

HIGH, GAP = 72, 26   # of a box; between two


def stacks(rows, memory=None, size=(1168, 420)):
    """Draw rows of steps, one below the other, each from left to right.

    A step is (title, detail, role), or (count, [(title, detail), ...]): a layer
    that is repeated, in a frame; each of its sublayers has a shortcut around it to
    "add, norm". memory: two lines of text on the arrow from the layer of the first
    row to the second sublayer of the second row's.
    """
    figure, axis = sheet(size)
    entry, exit = [], []
    for row, steps in enumerate(rows):
        y, x = 104 + 202 * row, 0
        for step in steps:
            if x:
                _arrow(axis, (x - GAP, y), (x, y))
            if len(step) == 3:
                wide = 114 if steps.index(step) > 1 else 126
                _box(axis, x, y, wide, *step)
            else:
                wide = _layer(axis, x, y, *step)
                entry.append((x + 16 + 238 + 80, y - 44))
                exit.append((x + wide, y))
            x += wide + GAP
    if memory:
        (x, y), (end, top), idea = exit[0], entry[1], color("idea")
        turn, middle = x + 30, (y + exit[1][1]) / 2
        axis.plot([x, turn, turn, end, end], [y, y, middle, middle, top],
                  linewidth=2.4, color=idea)
        _arrow(axis, (end, top), (end, top + 8), "idea")
        for line, text in enumerate(memory):
            axis.text(turn + 12, y + 46 + 26 * line, text, color=idea, size=18)
    return figure


def _layer(axis, x, y, count, sublayers):
    """A frame with sublayers, each with its shortcut to "add, norm"; its width."""
    wide = 16 + 238 * len(sublayers)
    axis.add_patch(_round(x, y - 82, wide, 138, 12, "panel", "lines"))
    axis.text(x + wide - 10, y - 58, f"×{count}", ha="right", weight="bold")
    for i, (title, detail) in enumerate(sublayers):
        left = x + 16 + 238 * i
        _box(axis, left, y, 160, title, detail, "idea")
        _box(axis, left + 172, y, 50, "add", "norm", "muted")
        axis.plot([left - 7] * 2 + [left + 197] * 2, [y, y - 50, y - 50, y - 36],
                  color=color("idea"), linewidth=2.4)
        _arrow(axis, (left + 160, y), (left + 172, y))
        if i:
            _arrow(axis, (left - 16, y), (left, y))
    return wide


def _box(axis, x, y, wide, title, detail, role):
    """A rounded box around (x + wide / 2, y) with two lines of text."""
    patch = _round(x, y - HIGH / 2, wide, HIGH, 8, role, role)
    patch.set_facecolor(color(role, 0.14))
    axis.add_patch(patch)
    for up, words, weight in (-12, title, "bold"), (14, detail, "normal"):
        axis.text(x + wide / 2, y + up, words, ha="center", va="center_baseline",
                  size=16, weight=weight)


def _round(x, y, wide, high, radius, face, edge):
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x, y), wide, high, f"round,pad=0,rounding_size={radius}",
                          linewidth=1.5, facecolor=color(face), edgecolor=color(edge))


def _arrow(axis, start, end, role="muted"):
    axis.annotate("", end, start, arrowprops={
        "arrowstyle": "-|>", "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0,
        "color": color(role)})
