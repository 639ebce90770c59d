"""lab.weights: torchvision's published weights, or what is wrong with their file."""

import hashlib
import os
from urllib.error import URLError

import numpy
import pytest
import torch
import torchvision
from PIL import Image

from declared import references
from identical import fill


@pytest.fixture
def image(tmp_path):
    """A file with waves of colour."""
    waves = numpy.indices((300, 400)).sum(0)[:, :, None] / [9, 14, 23]
    pixels = (127.5 + 127.5 * numpy.sin(waves)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "waves.png")
    return tmp_path / "waves.png"


@pytest.fixture
def classify(tmp_path, image, monkeypatch, script):
    """Run a module on an image, torch's cache in tmp_path and no network there."""
    def no_network(*args, **options):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return lambda module="resnet", image=image: script(
        module, "--weights", "imagenet", "--image", image, "--out", tmp_path / "out")


@pytest.fixture
def cached(tmp_path):
    """Where torch keeps a variant's published weights once they are downloaded."""
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)

    def file(name="resnet50"):
        return folder / published(name).url.rpartition("/")[2]

    return file


def name_by_hash(file, name, monkeypatch):
    """Let a file pass for the published weights of a model; returns its new path."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file = file.rename(file.with_name(f"{name}-{digest[:8]}.pth"))
    monkeypatch.setattr(published(name).value, "url", f"https://localhost/{file.name}")
    return file


def published(name):
    return torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]


PUBLISHED = {module: reference for module, reference in references()
             if reference.published}


def random_weights(reference):
    with torch.device("meta"):
        model = reference.theirs()
    return fill(model).state_dict()


@pytest.fixture
def shows_torchvisions_classes(classify, image, tmp_path, capsys):
    """Whether a module shows the five classes of torchvision with the same weights."""
    def check(module):
        reference = PUBLISHED[module]
        theirs = reference.theirs(weights=reference.weights).eval()
        with torch.no_grad():
            batch = reference.weights.transforms()(Image.open(image))[None]
            top = theirs(batch)[0].topk(5).indices.tolist()
        assert not classify(module)
        assert (tmp_path / f"out/img/{reference.name}-{image.stem}.svg").exists()
        shown = [line.split("%", 1)[1].strip()
                 for line in capsys.readouterr().out.splitlines() if "%" in line]
        categories = reference.weights.meta["categories"]
        return shown == [categories[i] for i in top]

    return check


@pytest.mark.parametrize("module", PUBLISHED)
def test_published_weights(module, shows_torchvisions_classes, monkeypatch):
    """Given to both where torchvision reads its file."""
    weights = random_weights(PUBLISHED[module])
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict",
                        lambda *args, **options: weights)
    assert shows_torchvisions_classes(module)


@pytest.mark.parametrize("module", ["resnet", "googlenet"])
def test_published_weights_in_torchs_cache(module, shows_torchvisions_classes, cached,
                                           monkeypatch):
    """A file as torch downloads it; GoogLeNet's has parts that are not used."""
    name = PUBLISHED[module].name
    torch.save(random_weights(PUBLISHED[module]), cached(name))
    name_by_hash(cached(name), name, monkeypatch)
    assert shows_torchvisions_classes(module)


def test_weights_without_network(classify, cached):
    message = classify()
    assert cached().name in message and str(cached().parent) in message
    assert "network" in message and "\n" not in message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"<html>"])
def test_corrupt_weights(classify, cached, content, monkeypatch):
    """Also where their hash is correct."""
    cached().write_bytes(content)
    message = classify()
    assert f"{cached()} is corrupt (its SHA256" in message and "\n" not in message
    file = name_by_hash(cached(), "resnet50", monkeypatch)
    message = classify()
    assert f"{file} is corrupt" in message and "\n" not in message


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_weights_execute_nothing(classify, cached, monkeypatch, tmp_path):
    """Not even where their hash is correct."""
    torch.save({"conv1.weight": Attack(tmp_path / "attacked")}, cached())
    file = name_by_hash(cached(), "resnet50", monkeypatch)
    message = classify()
    assert f"{file} is corrupt" in message and "\n" not in message
    assert not (tmp_path / "attacked").exists()


def test_a_wrong_download(classify, monkeypatch, cached):
    def portal(*args, **options):
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr("torch.hub.download_url_to_file", portal)
    message = classify()
    assert f"{cached()} is corrupt, or its download" in message and "\n" not in message


def test_no_image(classify, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    message = classify(image=text)
    assert f"{text} is not an image" in message and "\n" not in message
