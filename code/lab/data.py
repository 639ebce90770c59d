"""Data sets as torch Datasets of normalised images; those of text are in lab.text.

Embedded ones need no download. Real ones are read from $LAB_DATA, which is never
written, or from --data-dir, where downloads and unpacked copies go.
"""

import gzip
import shutil
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lab import UserError, files, results, runs


class Images(TensorDataset):
    """Normalised images (N, C, H, W) float32 and labels (N) int64.

    Each channel of the training set has mean 0 and variance 1; mean and std
    (C, 1, 1) undo the normalisation. classes: the labels' names.
    """

    def __init__(self, pictures, labels, classes, name, mean, std):
        super().__init__(pictures, labels)
        self.classes, self.name, self.mean, self.std = classes, name, mean, std

    def picture(self, index):
        """Image `index` without normalisation: (H, W) or (H, W, 3), 0..1."""
        picture = self.tensors[0][index] * self.std + self.mean
        return picture.clamp(0, 1).permute(1, 2, 0).squeeze(2).numpy()

    def first(self, n):
        """The first n samples."""
        pictures, labels = (tensor[:n] for tensor in self.tensors)
        return Images(pictures, labels, self.classes, self.name, self.mean, self.std)


def load(args, size=None):
    """Training and test set of args.data, resized to size x size if size is given.

    --quick leaves 64 and 32 samples. Raises UserError if the set is not here and
    cannot be fetched, or is corrupt.
    """
    options = {"size": size} if size else {}
    if args.data in REAL:
        options["data_dir"] = args.data_dir
    train, test = (EMBEDDED | REAL)[args.data](**options)
    if args.quick:
        train, test = train.first(64), test.first(32)
    runs.note_samples(train=len(train), test=len(test))
    return train, test


def digits(size=16):
    """Scikit-learn's 1,797 handwritten digits, 1,400 of them for training."""
    train, test = _digits()
    return _normalised(train, test, "0123456789", "digits", size)


@cache
def cluttered(size=32, n_train=4000, n_test=1000, seed=0):
    """Those digits at any position and scale among six fragments of others.

    Other seeds give other samples. No digit of the training
    set, nor a fragment of it, is in the test set.
    """
    generator = torch.Generator().manual_seed(seed)
    train, test = (
        _clutter(*part, size, n, generator)
        for part, n in zip(_digits(), (n_train, n_test)))
    return _normalised(train, test, "0123456789", "cluttered", size)


def mnist(data_dir, size=None):
    """MNIST, 60,000 + 10,000 digits (1, 28, 28)."""
    from torchvision.datasets import MNIST
    return _idx(MNIST, "mnist", "0123456789", data_dir, size)


def fashion_mnist(data_dir, size=None):
    """Fashion-MNIST, 60,000 + 10,000 pieces of clothing (1, 28, 28)."""
    from torchvision.datasets import FashionMNIST
    return _idx(FashionMNIST, "fashion_mnist", FashionMNIST.classes, data_dir, size)


def cifar10(data_dir, size=None):
    """CIFAR-10, 50,000 + 10,000 objects (3, 32, 32), or what is here of it.

    If batches of the training set are missing, it says so on stderr.
    """
    from torchvision.datasets import CIFAR10
    folder = Path(CIFAR10.base_folder)
    needed = [folder / "test_batch", folder / "batches.meta"]

    def batches(place):
        return [entry for entry in CIFAR10.train_list
                if (place / folder / entry[0]).is_file()]

    place = max(files.folders(data_dir), key=lambda place: len(batches(place)))
    if not batches(place) or not files.has(place, needed):
        archive = files.first(data_dir, [CIFAR10.filename])
        if archive:
            files.verify(archive / CIFAR10.filename, CIFAR10.tgz_md5)

        def download(folder):
            if archive:
                shutil.copy(archive / CIFAR10.filename, folder)
            CIFAR10(folder, download=True)

        place = files.fetch(download, "cifar10", data_dir, needed, archive)

    class Here(CIFAR10):
        train_list = batches(place)

    meta = [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]
    for file, md5 in [*Here.train_list, *CIFAR10.test_list, meta]:
        files.verify(place / folder / file, md5)
    train, test = sets = [Here(place, train=train) for train in (True, False)]
    if len(Here.train_list) < len(CIFAR10.train_list):
        here = ", ".join(file for file, _ in Here.train_list)
        files.say_once(f"cifar10: of the training set only {here} in "
                       f"{place / folder}: {len(train):,} training and "
                       f"{len(test):,} test samples")
    parts = [(torch.from_numpy(part.data).permute(0, 3, 1, 2),
              torch.tensor(part.targets)) for part in sets]
    return _normalised(*parts, train.classes, "cifar10", size)


EMBEDDED = {"digits": digits, "cluttered": cluttered}
REAL = {"mnist": mnist, "fashion_mnist": fashion_mnist, "cifar10": cifar10}


def random_crop(images, padding=4):
    """Shift each image (B, C, H, W) by up to `padding` pixels; zeros come in.

    Of normalised images they are the mean grey; torchvision's RandomCrop pads the raw
    image, with black.
    """
    B, _, H, W = images.shape
    top, left = torch.randint(2 * padding + 1, (2, B), device=images.device)
    return _windows(F.pad(images, [padding] * 4), top, left, H, W)


def random_flip(images):
    """Mirror each image (B, C, H, W) left to right with probability 1/2."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def _windows(images, top, left, height, width):
    """The window of each image (B, C, H, W) at its own top and left (B)."""
    B, C = (torch.arange(n, device=images.device) for n in images.shape[:2])
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    return images[B[:, None, None, None], C[:, None, None],
                  rows[:, None, :, None], columns[:, None, None, :]]


def _normalised(train, test, classes, name, size):
    """Two Images from (images, labels); images uint8 0..255 or float 0..1."""
    parts = []
    for pictures, labels in (train, test):
        if pictures.dtype == torch.uint8:
            pictures = pictures.float().div_(255)
        if size and tuple(pictures.shape[2:]) != (size, size):
            pictures = F.interpolate(pictures, (size, size), mode="bilinear")
        parts.append((pictures, labels))
    std, mean = torch.std_mean(parts[0][0], (0, 2, 3), correction=0)
    mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
    return [Images(pictures.sub(mean).div_(std).contiguous(), labels, list(classes),
                   name, mean, std) for pictures, labels in parts]


@cache
def _digits():
    """((images (N, 1, 8, 8), labels (N)) for training, the same for testing)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    pictures, labels = load_digits(return_X_y=True)
    split = train_test_split(pictures.reshape(-1, 1, 8, 8) / 16, labels,
                             train_size=1400, stratify=labels, random_state=0)
    train, test, train_labels, test_labels = map(torch.from_numpy, split)
    return (train.float(), train_labels), (test.float(), test_labels)


def _clutter(pictures, labels, size, n, generator, fragments=6):
    def uniform(low, high):
        return low + (high - low) * torch.rand(n, generator=generator)

    def pick():
        return torch.randint(len(pictures), (n,), generator=generator)

    def pasted(picture, scale):
        """Paste each image at `scale` of the canvas, anywhere on it."""
        theta = torch.zeros(n, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
        for axis in (0, 1):
            theta[:, axis, 2] = uniform(scale - 1, 1 - scale) / scale
        grid = F.affine_grid(theta, (n, 1, size, size), align_corners=False)
        return F.grid_sample(picture, grid, align_corners=False)

    chosen = pick()
    scale = uniform(0.45, 0.7)
    canvas = pasted(pictures[chosen], scale)
    for _ in range(fragments):
        top, left = torch.randint(6, (2, n), generator=generator)
        fragment = _windows(pictures[pick()], top, left, 3, 3)
        canvas = torch.maximum(canvas, pasted(fragment, scale * 3 / 8))
    return canvas, labels[chosen]


def _idx(kind, name, classes, data_dir, size):
    """MNIST and what has its format; the packed files are the ones with an MD5."""
    raw = Path(kind.__name__) / "raw"
    packed = [raw / file for file, _ in kind.resources]
    unpacked = [file.with_suffix("") for file in packed]
    if place := files.first(data_dir, packed):
        for file, (_, md5) in zip(packed, kind.resources):
            files.verify(place / file, md5)
        files.make_writable(data_dir)
        for file, target in zip(packed, unpacked):
            with (gzip.open(place / file) as source,
                  results.atomic(data_dir / target) as temporary,
                  open(temporary, "wb") as copy):
                shutil.copyfileobj(source, copy)
        place = data_dir
    else:
        place = files.first(data_dir, unpacked) or files.fetch(
            lambda folder: kind(folder, download=True), name, data_dir, packed)
    for file in unpacked:
        _complete(place / file)
    sets = [kind(place, train=train) for train in (True, False)]
    parts = [(part.data[:, None], part.targets) for part in sets]
    return _normalised(*parts, classes, name, size)


def _complete(file):
    """Check that an IDX file is as long as its header says."""
    with open(file, "rb") as content:
        header = content.read(16)
    dimensions = header[3] if len(header) == 16 else 0
    length = 1
    for i in range(dimensions):
        length *= int.from_bytes(header[4 + 4 * i:8 + 4 * i], "big")
    if not dimensions or file.stat().st_size != 4 + 4 * dimensions + length:
        raise UserError(f"{file} is corrupt (its length is not what its header "
                        "says): delete it")
