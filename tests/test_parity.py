"""Our models held against torchvision; LeNet and ResNet against their papers."""

import hashlib
import importlib
import os
import runpy
import signal
import sys
from pathlib import Path
from urllib.error import URLError

import numpy
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import lenet
import resnet
from conftest import assert_same
from lab import measure, runs

ROOT = Path(__file__).resolve().parents[1]
# Module and the variant whose published weights it runs.
PUBLISHED = {"alexnet": "alexnet", "vgg": "vgg16", "googlenet": "googlenet",
             "inception": "inception_v3", "resnet": "resnet50",
             "convnext": "convnext_tiny", "vit": "vit_b_16"}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(model):
    """As after training: no BatchNorm's values at 0 or 1, no matrix 0."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)


# Module, its variants with torchvision's names, the side of the pictures compared.
IDENTICAL = [(module, name, size) for module, names, size in [
    ("alexnet", ["alexnet"], 96),
    ("vgg", [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19)
             for norm in ("", "_bn")], 32),
    ("googlenet", ["googlenet"], 96),
    ("inception", ["inception_v3"], 299),
    ("resnet", ["resnet18", "resnet34", "resnet50", "resnet101"], 64),
    ("resnet", ["resnet152"], 48),
    ("convnext", ["convnext_tiny", "convnext_small", "convnext_base",
                  "convnext_large"], 32),
    ("vit", ["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32"], 64),
] for name in names]


def variant(module, name, size=224):
    """Ours and torchvision's model of that name; shapes only under a meta device."""
    same = {"image_size": size} if module == "vit" else {}  # others take any size
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    ours = getattr(importlib.import_module(module), name)(**same)
    return ours, torchvision.models.get_model(name, **same, **slow)


@pytest.mark.parametrize("module, name, size", [
    pytest.param(*case, id=case[1]) for case in IDENTICAL])
def test_identical(module, name, size):
    """Same parameters by name, outputs, running statistics and gradients."""
    ours, reference = variant(module, name, size)
    randomise(reference)
    ours.load_state_dict(reference.state_dict(), strict=True)
    samples = 8 if module == "convnext" else 2  # some must survive stochastic depth
    x = torch.randn(samples, 3, size, size)

    with torch.no_grad():
        assert_same(ours.eval()(x), reference.eval()(x), "in eval mode")
    outputs = {}
    for model in (ours, reference):
        torch.manual_seed(1)  # the same dropout
        output = model.train()(x)
        outputs[model] = output if isinstance(output, tuple) else (output,)
        sum(part.mul(torch.randn(part.shape)).sum()
            for part in outputs[model]).backward()
    for part, expected in zip(outputs[ours], outputs[reference], strict=True):
        assert_same(part, expected, "in train mode")
    gradients = {key: p.grad for key, p in reference.named_parameters()}
    for key, parameter in ours.named_parameters():
        assert_same(parameter.grad, gradients[key], f"gradient of {key}")
    buffers = dict(reference.named_buffers())
    for key, buffer in ours.named_buffers():
        assert_same(buffer, buffers[key], key)


def test_v1():
    """The paper's bottleneck strides in its first 1x1, torchvision's in its 3x3."""
    paper = resnet.resnet50(block=resnet.BottleneckV1)
    library = resnet.resnet50()
    for model, strides in [(paper, (2, 1, 1)), (library, (1, 2, 1))]:
        for stage in (model.layer2, model.layer3, model.layer4):
            first, *others = stage
            assert strides == tuple(
                conv.stride[0] for conv in (first.conv1, first.conv2, first.conv3))
            assert {conv.stride for block in others for conv in block.modules()
                    if isinstance(conv, nn.Conv2d)} == {(1, 1)}
    shapes = {key: value.shape for key, value in library.state_dict().items()}
    assert shapes == {key: value.shape for key, value in paper.state_dict().items()}
    image = (1, 3, 224, 224)
    assert measure.multiply_adds(paper, image) < measure.multiply_adds(library, image)


@pytest.mark.parametrize("module, name", [
    pytest.param(module, name, id=name) for module, name, _ in IDENTICAL])
def test_multiply_adds(module, name):
    """As many, in G, as torchvision publishes, with as many parameters."""
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
    side = 299 if name == "inception_v3" else 224
    with torch.device("meta"):
        ours, _ = variant(module, name)
    billions = measure.multiply_adds(ours, (1, 3, side, side)) / 1e9
    assert round(billions, 3) == published["_ops"]
    if name == "googlenet":  # published without its two auxiliary heads
        ours.aux1 = ours.aux2 = None
    assert measure.parameters(ours) == published["num_params"]


@pytest.mark.parametrize("depth, millions", [
    pytest.param(depth, millions, id=str(depth)) for depth, millions in [
        (20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]])
def test_cifar_parameters(depth, millions):
    """As many as in the paper's table 6, with as many layers as the name says."""
    model = resnet.CifarResNet(depth)
    digits = len(str(millions).partition(".")[2])
    assert round(measure.parameters(model) / 1e6, digits) == millions
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth
    plain = resnet.CifarResNet(depth, plain=True)
    assert measure.parameters(plain) == measure.parameters(model)


def test_zero_padding():
    """Shortcut A: every second pixel, and zeros in the new channels."""
    x = torch.randn(2, 3, 8, 8)
    y = resnet.ZeroPadding(3, 5, stride=2)(x)
    assert y.shape == (2, 5, 4, 4)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


def test_lenet_parameters():
    """Layer by layer as section II.B states; 60,000 in all."""
    model = lenet.LeNet5Original()
    free = {name: measure.parameters(layer) for name, layer in model.named_children()}
    free["c3"] -= 25 * int((~model.c3.mask).sum())
    assert free == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120,
                    "f6": 10164, "output": 0}
    assert sum(free.values()) == 60_000
    assert measure.parameters(lenet.LeNet5()) == 61_706


def test_lenet_c3():
    """A map of C3 changes with those maps of S2 that table I connects to it."""
    layer = lenet.SparseConv2d()
    x = torch.randn(1, 6, 14, 14)
    for i in range(6):
        without = x.clone()
        without[:, i] = 0
        changed = (layer(x) != layer(without)).any(3).any(2)[0]
        connected = [str(i) in inputs for inputs in lenet.C3_INPUTS]
        assert changed.tolist() == connected
    layer(x).square().sum().backward()
    assert torch.equal(layer.weight.grad.abs().sum((2, 3)) > 0, layer.mask[:, :, 0, 0])


def test_lenet_c3_table():
    """Table I: 6 triples and 6 quadruples of neighbours, 3 others, 1 of all."""
    sizes = [len(set(inputs)) for inputs in lenet.C3_INPUTS]
    assert sizes == 6 * [3] + 9 * [4] + [6]
    neighbours = [{str((i + k) % 6) for k in range(n)}
                  for n in (3, 4) for i in range(6)]
    found = [set(inputs) for inputs in lenet.C3_INPUTS]
    assert sorted(map(sorted, found[:12])) == sorted(map(sorted, neighbours))
    assert len(set(map(frozenset, found))) == 16
    seen = "".join(lenet.C3_INPUTS)
    assert [seen.count(str(i)) for i in range(6)] == 6 * [10]


def test_lenet_subsampling():
    layer = lenet.Subsampling(3)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 8, 8)
    sums = x.unfold(2, 2, 2).unfold(3, 2, 2).sum((-2, -1))
    torch.testing.assert_close(layer(x), layer.weight * sums + layer.bias)


def test_lenet_output():
    """Minus the squared distance to ten different bitmaps of pixels +1 and -1."""
    layer = lenet.RadialBasis()
    assert layer.bitmaps.shape == (10, 84)
    assert set(layer.bitmaps.unique().tolist()) == {-1.0, 1.0}
    assert len(layer.bitmaps.unique(dim=0)) == 10
    x = torch.randn(5, 84)
    torch.testing.assert_close(-layer(x), torch.cdist(x, layer.bitmaps).square())
    assert layer(layer.bitmaps).argmax(1).tolist() == list(range(10))


def test_lenet_loss():
    """Eq. 9, written out."""
    distances, labels = 5 * torch.rand(6, 10), torch.randint(10, (6,))
    expected = torch.stack([
        y[label] + torch.log(torch.exp(torch.tensor(-0.5)) + torch.exp(-y).sum())
        for y, label in zip(distances, labels)]).mean()
    torch.testing.assert_close(lenet.map_loss(-distances, labels, j=0.5), expected)


def test_scaled_tanh():
    """f(1) = 1 and f(-1) = -1, and its slope at 0 is 2/3 of 1.7159."""
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    y = lenet.scaled_tanh(x)
    torch.testing.assert_close(y, x, atol=1e-4, rtol=0)
    y.sum().backward()
    assert x.grad[1].item() == pytest.approx(1.7159 * 2 / 3)


@pytest.fixture
def picture(tmp_path):
    """A file with waves of colour."""
    waves = numpy.indices((300, 400)).sum(0)[:, :, None] / [9, 14, 23]
    pixels = (127.5 + 127.5 * numpy.sin(waves)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def classify(tmp_path, picture, monkeypatch):
    """Run a module on a picture, torch's cache in tmp_path and no network there."""
    def no_network(*args, **options):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(runs, "_current", None)
    handler = signal.getsignal(signal.SIGINT)

    def run(module="resnet", image=picture):
        """The message with which the script ends."""
        script = str(ROOT / f"code/{module}.py")
        monkeypatch.setattr(sys, "argv", [
            script, "--weights", "imagenet", "--image", str(image),
            "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(script, run_name="__main__")
        return end.value.code

    yield run
    signal.signal(signal.SIGINT, handler)


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


@pytest.mark.parametrize("module, name", PUBLISHED.items(), ids=PUBLISHED)
def test_published_weights(module, name, classify, cached, picture, tmp_path, capsys,
                           monkeypatch):
    """With a file of weights in torch's cache: torchvision's own five classes."""
    options = ({"init_weights": False, "transform_input": True}
               if name in ("googlenet", "inception_v3") else {})
    reference = torchvision.models.get_model(name, **options)
    randomise(reference)
    torch.save(reference.state_dict(), cached(name))
    name_by_hash(cached(name), name, monkeypatch)
    with torch.no_grad():
        batch = published(name).transforms()(Image.open(picture))[None]
        top = reference.eval()(batch)[0].topk(5).indices.tolist()
    assert not classify(module)
    assert (tmp_path / f"out/img/{name}-picture.svg").exists()
    found = [line.split("%", 1)[1].strip()
             for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert found == [published(name).meta["categories"][i] for i in top]


def test_weights_without_network(classify, cached):
    message = classify()
    assert cached().name in message and str(cached().parent) in message
    assert "network" in message and "\n" not in message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"<html>"])
def test_corrupt_weights(classify, cached, content, monkeypatch):
    """Also where their hash is right."""
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
    """Not even where their hash is right."""
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


def test_no_picture(classify, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    message = classify(image=text)
    assert f"{text} is not an image" in message and "\n" not in message
