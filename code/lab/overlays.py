"""Boxes on images: what is to be found, or what was, with its class and score."""

from lab.look import FULL, SMALL, as_image, color, crop, sheet, width


def boxes(pictures, targets, classes=(), captions=None, columns=None, role="idea",
          size=FULL):
    """Draw images in a grid, each with boxes, their classes and scores.

    pictures: (C, H, W), (H, W) or (H, W, 3) in 0..1, of equal height and width.
    targets: for each a dict of boxes (N, 4) x1 y1 x2 y2 in its pixels, which end at
    its edges; it may have labels (N), which name the boxes by `classes`, scores (N) in
    0..1, and roles, a list of N colours in place of `role`. captions: below the images.
    """
    pictures = [as_image(picture) for picture in pictures]
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    gap, below = 14, 30 if captions else 0
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    wide = min((size[0] - 6 - (columns - 1) * gap) / columns,
               ((size[1] - 6 - (rows - 1) * gap) / rows - below) / aspect)
    high = wide * aspect
    figure, axis = sheet(size)
    for k, (picture, target) in enumerate(zip(pictures, targets)):
        row, column = divmod(k, columns)
        x, y = 3 + column * (wide + gap), 3 + row * (high + below + gap)
        axis.imshow(picture, extent=(x, x + wide, y + high, y), aspect="auto",
                    vmin=0, vmax=1)
        names = _names(target, classes)
        roles = target.get("roles") or [role] * len(names)
        for box, name, each in zip(target["boxes"].tolist(), names, roles):
            corners = [start + min(max(value * wide / picture.shape[1], 0), side)
                       for start, value, side in zip(
                           (x, y, x, y), box, (wide, high, wide, high))]
            _draw(axis, corners, name, each, x, y, x + wide)
        if captions:
            axis.text(x + wide / 2, y + high + 8, captions[k], size=SMALL, va="top",
                      ha="center")
    crop(figure, 6 + rows * (high + below + gap) - gap)
    return figure


def _names(target, classes):
    """What is written at each box: class, score, both or nothing."""
    names = [""] * len(target["boxes"])
    if classes and "labels" in target:
        names = [classes[label] for label in target["labels"].tolist()]
    if "scores" in target:
        names = [f"{name} {score:.0%}".strip().replace("%", " %")
                 for name, score in zip(names, target["scores"].tolist())]
    return names


def _draw(axis, corners, name, role, left, top, right):
    """A box with its name on a ground of its colour, above it or, at the top, in it."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = corners
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=3,
                             edgecolor=color(role), zorder=3))
    if not name:
        return
    high, wide = 20, width(axis.figure, name, size=SMALL, weight="bold") + 8
    x = max(left, min(x1 - 1.5, right - wide))
    y = y1 - high if y1 - high >= top else y1
    axis.add_patch(Rectangle((x, y), wide, high, facecolor=color(role), zorder=4,
                             linewidth=0))
    axis.text(x + 4, y + high / 2, name, size=SMALL, weight="bold", zorder=5,
              va="center_baseline", color=color("paper"))
