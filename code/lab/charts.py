"""Numbers as bars, points and counts: one measure of several things."""

from lab.look import BESIDE, FULL, SMALL, array, color, crop, settle, sheet, width


def bars(values, unit="", roles=None, digits="{:,}", size=FULL):
    """A bar for each {label: value}, the value with its unit at its end.

    roles: {label: role}, muted where nothing is said. digits: how to write a value.
    """
    figure, axis = sheet(size)
    left = max(width(figure, label) for label in values) + 16
    texts = [f"{digits.format(value)} {unit}".strip() for value in values.values()]
    room = size[0] - left - max(width(figure, text, weight="bold") for text in texts)
    step = min(72, size[1] / len(values))
    for row, ((label, value), text) in enumerate(zip(values.items(), texts)):
        y = (row + 0.5) * step
        role = (roles or {}).get(label, "muted")
        length = (room - 16) * value / max(values.values())
        axis.text(0, y, label, va="center_baseline")
        axis.add_patch(box(left, y - step * 0.32, length, step * 0.64, color(role)))
        axis.text(left + length + 10, y, text, va="center_baseline", weight="bold",
                  color=color(role))
    crop(figure, len(values) * step)
    return figure


def grouped_bars(groups, roles=None, digits="{:.1%}"):
    """Draw {group: [(label, value), ...]}: below each group's title a bar a label.

    roles: {label: role}, "idea" where nothing is said. digits: how to write a value.
    """
    figure, axis = sheet()
    every = [pair for pairs in groups.values() for pair in pairs]
    left = 20 + max(width(figure, label) for label, _ in every)
    y, scale = 0, 700 / max(value for _, value in every)
    for title, pairs in groups.items():
        axis.text(0, y + 18, title, va="center_baseline", weight="bold")
        for label, value in pairs:
            y += 34
            shade, length = color((roles or {}).get(label, "idea")), scale * value
            axis.text(left - 12, y + 22, label, va="center_baseline", ha="right")
            axis.barh(y + 20, length, 22, left, color=shade)
            axis.text(left + length + 10, y + 22, digits.format(value),
                      va="center_baseline", color=shade, weight="bold")
        y += 60
    crop(figure, y - 8)
    return figure


def points(axis, places, roles=None, size=SMALL):
    """Mark each {label: (x, y)} and write its label beside it, none over another.

    roles: {label: role}, "idea" where nothing is said. Call it when the limits and
    scales of the axis are set.
    """
    import numpy as np

    settle(axis.figure)
    taken = [axis.transData.transform(place) + [[-8, -8], [8, 8]]
             for place in places.values()]
    box = axis.bbox
    for label, place in places.items():
        role = (roles or {}).get(label, "idea")
        axis.plot(*place, "o", color=color(role), markersize=11, clip_on=False,
                  label="_" + label)
        wide, high = width(axis.figure, label, size=size), 1.2 * size
        x, y = axis.transData.transform(place)

        def overlap(offset):
            low = np.array([x, y]) + offset - (0, high / 2)
            top = low + (wide, high)
            outside = np.maximum(0, [box.x0 - low[0], top[0] - box.x1 - 8,
                                     box.y0 - low[1], top[1] - box.y1]).sum()
            return 100 * outside + sum(
                np.maximum(0, np.minimum(top, end) - np.maximum(low, start)).prod()
                for start, end in taken)

        offsets = [(13, 0), (-13 - wide, 0), (-wide / 2, 20), (-wide / 2, -20),
                   (10, 14), (10, -14), (-10 - wide, 14), (-10 - wide, -14)]
        offset = min(offsets, key=overlap)
        corner = np.array([x, y]) + offset - (0, high / 2)
        taken.append(np.array([corner, corner + (wide, high)]))
        axis.annotate(label, place, offset, textcoords="offset points", size=size,
                      va="center_baseline", color=color(role), annotation_clip=False)


def confusion(matrix, classes, size=BESIDE):
    """Counts (true class, predicted class): hits blue, mistakes vermilion."""
    import numpy as np

    counts = array(matrix)
    n = len(classes)
    figure, axis = sheet(size)
    names = [str(name) for name in classes]
    longest = max(width(figure, name, size=SMALL) for name in names)
    left, top = longest + 44, 62
    wide, high = (size[0] - left - 2) / n, (size[1] - top - 2) / n
    turned = longest > wide - 8
    if turned:
        top = longest + 44
        high = (size[1] - top - 2) / n
    worst = max(1, (counts * (1 - np.eye(n))).max())
    for row in range(n):
        y = top + (row + 0.5) * high
        axis.text(left - 10, y, names[row], ha="right", va="center_baseline",
                  size=SMALL)
        for column in range(n):
            x = left + (column + 0.5) * wide
            count = int(counts[row, column])
            hit = row == column
            share = count / max(1, counts[row].sum()) if hit else count / worst
            strength = 0.1 + (0.9 if hit else 0.35) * share
            role = "idea" if hit else "control"
            axis.add_patch(box(x - wide / 2 + 1.5, y - high / 2 + 1.5, wide - 3,
                                high - 3, color(role, strength) if count
                                else color("panel")))
            if count:
                axis.text(x, y, f"{count:,}", ha="center", va="center_baseline",
                          size=SMALL, weight="bold" if hit else "normal",
                          color=color("paper" if strength > 0.55 else "ink"))
    for column, name in enumerate(names):
        axis.text(left + (column + 0.5) * wide, top - 10, name, size=SMALL,
                  ha="center", va="bottom", rotation=90 if turned else 0)
    muted = {"color": color("muted"), "size": SMALL}
    axis.text(left + n * wide / 2, 18, "predicted", ha="center", **muted)
    axis.text(16, top + n * high / 2, "true", rotation=90, ha="center", va="center",
              **muted)
    return figure


def box(x, y, wide, high, face):
    """A rectangle with round corners, to be added to an axis."""
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x, y), wide, high, boxstyle="round,pad=0,rounding_size=3",
                          facecolor=face, linewidth=0)
