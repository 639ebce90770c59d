"""lab.data: every data set, whole, partial, damaged or absent."""

import gzip
import hashlib
import pickle
import tarfile
from types import SimpleNamespace

import numpy
import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST

from conftest import REAL_DATA, listing, one_line, real
from lab import UserError, data, runs


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(array):
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


@pytest.fixture(autouse=True)
def run(monkeypatch):
    monkeypatch.setattr(runs, "_current", SimpleNamespace(
        command="python code/toy.py --data mnist"))
    monkeypatch.delenv("LAB_DATA", raising=False)


@pytest.fixture
def small_mnist(monkeypatch, tmp_path):
    """A folder with MNIST's four packed files, but 20 + 10 samples."""
    raw = tmp_path / "lab_data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    noise, resources = numpy.random.default_rng(0), []
    for part, n in [("train", 20), ("t10k", 10)]:
        for kind, array in [("images-idx3", noise.integers(0, 256, (n, 28, 28))),
                            ("labels-idx1", numpy.arange(n) % 10)]:
            file = raw / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx(array.astype("uint8"))))
            resources.append((file.name, md5(file.read_bytes())))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    return tmp_path / "lab_data"


@pytest.fixture
def small_cifar10(monkeypatch, tmp_path):
    """A folder with CIFAR-10's seven files, but 10 samples in each."""
    folder = tmp_path / "lab_data" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    noise, sums = numpy.random.default_rng(0), {}
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]
    for name in names:
        content = {"data": noise.integers(0, 256, (10, 3072)).astype("uint8"),
                   "labels": list(range(10)), "label_names": list("abcdefghij")}
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = md5((folder / name).read_bytes())
    monkeypatch.setattr(CIFAR10, "train_list", [[n, sums[n]] for n in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    return tmp_path / "lab_data"


def test_digits_are_real_split_and_normalised():
    train, test = data.digits()
    pictures, labels = train.tensors
    assert pictures.shape == (1400, 1, 16, 16) and pictures.dtype == torch.float32
    assert test.tensors[0].shape == (397, 1, 16, 16)
    assert labels.dtype == torch.int64 and train.classes == list("0123456789")
    assert pictures.mean().abs() < 1e-4 and (pictures.var() - 1).abs() < 1e-3
    shares = [part.tensors[1].bincount() / len(part) for part in (train, test)]
    assert (shares[0] - shares[1]).abs().max() < 0.01
    assert torch.equal(pictures, data.digits()[0].tensors[0])


def test_pictures_can_be_looked_at():
    picture = data.digits(28)[0].picture(0)
    assert picture.shape == (28, 28) and picture.min() == 0 and 0.8 < picture.max() <= 1


def test_a_batch_is_one_index():
    train, _ = data.digits()
    pictures, labels = train[torch.tensor([3, 1])]
    assert torch.equal(pictures[1], train[1][0]) and labels.shape == (2,)


def test_cluttered_is_endless_and_the_same_for_a_seed():
    first, again, other = (data.cluttered(24, 50, 20, seed) for seed in (0, 0, 1))
    assert first[0].tensors[0].shape == (50, 1, 24, 24) and len(first[1]) == 20
    assert torch.equal(first[1].tensors[0], again[1].tensors[0])
    assert not torch.equal(first[0].tensors[0], other[0].tensors[0])


def test_quick_leaves_a_few_samples_and_the_run_knows():
    args = SimpleNamespace(data="digits", quick=True)
    train, test = data.load(args, size=20)
    assert train.tensors[0].shape == (64, 1, 20, 20) and len(test) == 32
    assert runs.current().samples == {"train": 64, "test": 32}
    assert train.classes and train.picture(0).shape == (20, 20)


def test_random_crop_takes_a_window_of_each_image_by_itself():
    torch.manual_seed(0)
    images = torch.rand(40, 2, 5, 6)
    padded = torch.nn.functional.pad(images, [2] * 4)
    places = set()
    for source, crop in zip(padded, data.random_crop(images, padding=2)):
        found = [(i, j) for i in range(5) for j in range(5)
                 if torch.equal(source[:, i:i + 5, j:j + 6], crop)]
        assert found
        places.update(found)
    assert len(places) > 10


def test_random_flip_mirrors_about_half():
    torch.manual_seed(0)
    images = torch.rand(100, 1, 3, 4)
    flipped = data.random_flip(images)
    same = [torch.equal(a, b) for a, b in zip(images, flipped)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(images, flipped)]
    assert all(a != b for a, b in zip(same, mirrored)) and 30 < sum(same) < 70


def test_lab_data_is_read_and_never_written(small_mnist, monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_DATA", str(small_mnist))
    before = listing(small_mnist)
    train, test = data.mnist(tmp_path / "data", size=32)
    assert train.tensors[0].shape == (20, 1, 32, 32)
    assert test.tensors[1].tolist() == list(range(10))
    assert listing(small_mnist) == before
    assert (tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()
    with pytest.raises(UserError) as error:
        data.mnist(small_mnist / "new")
    one_line(error, "LAB_DATA", "another folder")
    assert listing(small_mnist) == before


def test_unpacked_files_are_enough(small_mnist):
    for packed in (small_mnist / "MNIST" / "raw").iterdir():
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert len(data.mnist(small_mnist)[0]) == 20


@pytest.mark.parametrize("damage", [
    lambda content: content[:-5], lambda content: b"",
    lambda content: content[:50] + b"?" + content[51:]],
    ids=["short", "empty", "altered"])
def test_a_damaged_packed_file_is_named(small_mnist, damage):
    file = small_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError) as error:
        data.mnist(small_mnist)
    one_line(error, str(file), "corrupt")


def test_a_truncated_unpacked_file_is_named(small_mnist):
    data.mnist(small_mnist)
    raw = small_mnist / "MNIST" / "raw"
    for packed in raw.glob("*.gz"):
        packed.unlink()
    file = raw / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError) as error:
        data.mnist(small_mnist)
    one_line(error, str(file), "corrupt")


def test_an_altered_unpacked_copy_is_made_anew(small_mnist):
    data.mnist(small_mnist)
    copy = small_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1] + b"\x01")
    data.mnist(small_mnist)
    assert copy.read_bytes() == whole


def test_without_data_and_network_one_line_says_where_it_looked(
        small_mnist, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LAB_DATA", str(small_mnist))
    (small_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError) as error:
        data.mnist(tmp_path / "data")
    one_line(error, "mnist", str(small_mnist), "no t10k-labels-idx1-ubyte.gz",
             str(tmp_path / "data"), "with a network: python code/toy.py --data mnist")
    assert not list((tmp_path / "data").iterdir())


def test_mnist_is_downloaded(small_mnist, monkeypatch, web, tmp_path):
    folder, address = web
    monkeypatch.setattr(MNIST, "mirrors", [address])
    for file in (small_mnist / "MNIST" / "raw").iterdir():
        file.rename(folder / file.name)
    train, _ = data.mnist(tmp_path / "data")
    assert len(train) == 20
    monkeypatch.setattr(MNIST, "mirrors", [])
    assert len(data.mnist(tmp_path / "data")[0]) == 20


def test_cifar10_whole_and_in_part(small_cifar10, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LAB_DATA", str(small_cifar10))
    before = listing(small_cifar10)
    train, test = data.cifar10(tmp_path / "data")
    assert train.tensors[0].shape == (50, 3, 32, 32) and len(test) == 10
    assert train.picture(0).shape == (32, 32, 3) and train.classes == list("abcdefghij")
    assert train.tensors[0].mean((0, 2, 3)).abs().max() < 1e-4
    assert capsys.readouterr().err == "" and listing(small_cifar10) == before
    for i in range(2, 6):
        (small_cifar10 / CIFAR10.base_folder / f"data_batch_{i}").unlink()
    train, test = data.cifar10(tmp_path / "data")
    assert len(train) == 10 and len(test) == 10
    said = capsys.readouterr().err
    assert "only data_batch_1 in" in said and ": 10 training and 10 test" in said
    data.cifar10(tmp_path / "data")
    assert capsys.readouterr().err == ""  # said once is enough


def test_a_damaged_cifar10_batch_is_named(small_cifar10):
    file = small_cifar10 / CIFAR10.base_folder / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError) as error:
        data.cifar10(small_cifar10)
    one_line(error, str(file), "corrupt")


@pytest.mark.parametrize("source", ["archive", "web"])
def test_cifar10_is_unpacked_or_downloaded(
        small_cifar10, monkeypatch, web, tmp_path, source):
    folder, address = web
    archive = folder / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(small_cifar10 / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.read_bytes()))
    if source == "archive":
        monkeypatch.setenv("LAB_DATA", str(folder))
    else:
        monkeypatch.setattr(CIFAR10, "url", address + archive.name)
    train, _ = data.cifar10(tmp_path / "data")
    assert len(train) == 50 and [file.name for file in folder.iterdir()] == [
        archive.name]
    assert not list((tmp_path / "data").glob(".fetching*"))


def test_no_cifar10_at_all(small_cifar10, tmp_path):
    with pytest.raises(UserError) as error:
        data.cifar10(tmp_path / "data")
    one_line(error, "cifar10", str(tmp_path / "data"), "cannot be fetched")


@real
@pytest.mark.parametrize("name, shape, test_samples", [
    ("mnist", (60_000, 1, 28, 28), 10_000),
    ("fashion_mnist", (60_000, 1, 28, 28), 10_000),
    ("cifar10", (None, 3, 32, 32), 10_000)])
def test_real_data(name, shape, test_samples, monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_DATA", str(REAL_DATA))
    before = listing(REAL_DATA)
    train, test = data.load(SimpleNamespace(
        data=name, data_dir=tmp_path, quick=False))
    assert train.tensors[0].shape[1:] == shape[1:] and len(train.classes) == 10
    assert len(train) == (shape[0] or len(train)) and len(train) % 10_000 == 0
    assert len(test) == test_samples
    assert train.tensors[0].mean((0, 2, 3)).abs().max() < 1e-3
    assert train.tensors[1].bincount().min() > len(train) * 0.09
    assert listing(REAL_DATA) == before
