"""Scenes of several digits among clutter, each with its box, mask and class.

lab.data.scenes makes them of scikit-learn's digits; detection, segmentation and
captioning learn from them.
"""

import torch
from torch.utils.data import Dataset

CLASSES = ["background", *"0123456789"]
WORDS = "zero one two three four five six seven eight nine".split()
INK = 0.3        # what is lighter belongs to a digit's mask
LEAST = 8        # visible pixels of a digit; with fewer it is no object
TRIES = 30       # positions tried before a digit is left out
TOGETHER = 250   # scenes composed at once


class Detections(Dataset):
    """Images, each with a target: what is to be found in it.

    An image is (C, H, W) float32 in 0..1; images may differ in size. A target has
    boxes (N, 4) float32, x1 y1 x2 y2 in pixels of its image, and labels (N) int64
    from 1 on: 0 is the background. N may be 0. classes: the labels' names.
    """

    def __init__(self, images, targets, classes, name):
        self.images, self.targets = images, targets
        self.classes, self.name = classes, name

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        """(image, target); of a tensor of indices, two lists: images are not stacked.

        That is the collation which training.loader needs.
        """
        if torch.is_tensor(index) and index.ndim:
            chosen = index.tolist()
            return ([self.images[i] for i in chosen], [self.targets[i] for i in chosen])
        return self.images[index], self.targets[index]

    def first(self, n):
        """The first n samples."""
        return Detections(self.images[:n], self.targets[:n], self.classes, self.name)


def compose(pictures, labels, n, size, generator, number=(1, 5), scale=(0.2, 0.5),
            overlap=0.05, fragments=8):
    """n scenes of size x size pixels as Detections, the digits in sizes and places
    at random.

    pictures (M, 1, 8, 8) in 0..1, labels (M). number: fewest and most digits; fewer
    where they find no room. scale: smallest and largest side of a digit, as a share
    of the scene's. overlap: largest IoU of the squares of two digits. fragments: of
    other digits, as clutter. Targets have masks (N, H, W) bool, too, which are
    disjoint, and a caption.
    """
    images, targets = [], []
    while len(images) < n:
        corners, sides, present = _arrange(number, scale, overlap, size, generator)
        chosen = torch.randint(len(pictures), sides.shape, generator=generator)
        layers = _paste(pictures[chosen, 0].flatten(0, 1), corners.flatten(0, 1),
                        sides.flatten(), size).view(*sides.shape, size, size)
        layers = layers * present[..., None, None]            # (B, N, H, W)
        clutter = _clutter(pictures, len(sides), fragments, scale, size, generator)
        images += torch.maximum(layers.amax(1), clutter)[:, None]
        targets += _targets(layers, labels[chosen], sides / size)
    return Detections(images[:n], targets[:n], CLASSES, "scenes")


def _arrange(number, scale, overlap, size, generator):
    """Corners (B, N, 2) x y, sides (B, N) in pixels, and which are present (B, N)."""
    few, many = number
    count = torch.randint(few, many + 1, (TOGETHER,), generator=generator)
    share = torch.rand(TOGETHER, many, generator=generator)
    sides = size * (scale[0] + (scale[1] - scale[0]) * share)
    free = torch.rand(TOGETHER, many, TRIES, 2, generator=generator)
    tried = free * (size - sides)[..., None, None]            # (B, N, TRIES, 2)
    corners, present = torch.zeros(TOGETHER, many, 2), torch.zeros(TOGETHER, many)
    for k in range(many):
        iou = _square_iou(tried[:, k], sides[:, k, None], corners[:, :k], sides[:, :k])
        iou = iou * present[:, None, :k]                      # (B, TRIES, k)
        fits = (iou <= overlap).all(2)
        place = fits.int().argmax(1)
        corners[:, k] = tried[torch.arange(TOGETHER), k, place]
        present[:, k] = (fits.any(1) & (k < count)).float()
    return corners, sides, present


def _square_iou(corners, sides, others, their_sides):
    """IoU of squares (B, T, 2), (B, T) with others (B, K, 2), (B, K): (B, T, K)."""
    low = torch.maximum(corners[:, :, None], others[:, None])
    high = torch.minimum((corners + sides[..., None])[:, :, None],
                         (others + their_sides[..., None])[:, None])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / ((sides ** 2)[..., None] + (their_sides ** 2)[:, None] - shared)


def _paste(pictures, corners, sides, size):
    """Each picture (M, h, w) enlarged to its side, on a canvas of its own."""
    def weights(corner, length):  # bilinear, of each of `length` rows or columns
        step = (sides / length)[:, None, None]
        at = (torch.arange(size) + 0.5 - corner[:, None])[..., None] / step - 0.5
        return (1 - (at - torch.arange(length)).abs()).clamp(min=0)

    height, width = pictures.shape[1:]
    rows, columns = weights(corners[:, 1], height), weights(corners[:, 0], width)
    return rows @ pictures @ columns.mT                       # (M, size, size)


def _clutter(pictures, n, fragments, scale, size, generator):
    """Pieces of 3 x 3 pixels of other digits, anywhere: (n, size, size)."""
    canvas = torch.zeros(n, size, size)
    for _ in range(fragments):
        chosen = torch.randint(len(pictures), (n,), generator=generator)
        top, left = torch.randint(6, (2, n), generator=generator)
        offset = torch.arange(3)
        piece = pictures[chosen[:, None, None], 0, (top[:, None] + offset)[:, :, None],
                         (left[:, None] + offset)[:, None]]
        share = torch.rand(n, generator=generator)
        sides = size * (scale[0] + (scale[1] - scale[0]) * share) * 3 / 8
        corners = torch.rand(n, 2, generator=generator) * (size - sides)[:, None]
        canvas = torch.maximum(canvas, _paste(piece, corners, sides, size))
    return canvas


def _targets(layers, kinds, shares):
    """What is to be found: layers (B, N, H, W), each digit alone; kinds, shares (B, N).

    A pixel that several digits cover belongs to the lightest of them.
    """
    owner = layers.argmax(1, keepdim=True)
    masks = (layers > INK) & (owner == torch.arange(layers.shape[1])[:, None, None])
    top, bottom = _ends(masks.any(3))
    left, right = _ends(masks.any(2))
    boxes = torch.stack([left, top, right, bottom], dim=2).float()
    kept = masks.sum((2, 3)) >= LEAST
    parts = zip(boxes, kinds, masks, shares, kept)
    return [{"boxes": box[k], "labels": kind[k] + 1, "masks": mask[k],
             "caption": _caption(box[k], kind[k], share[k])}
            for box, kind, mask, share, k in parts]


def _ends(lines):
    """Where each of lines (B, N, L) bool begins to be true, and where it ends."""
    lines = lines.int()
    return lines.argmax(2), lines.shape[2] - lines.flip(2).argmax(2)


def _caption(boxes, kinds, shares):
    """What there is, from left to right: "a small three and a large seven"."""
    names = []
    for i in boxes[:, 0].argsort().tolist():
        share = shares[i]
        extent = "small" if share < 0.3 else "large" if share > 0.4 else "medium"
        names.append(f"a {extent} {WORDS[kinds[i]]}")
    if len(names) < 2:
        return names[0] if names else "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"
