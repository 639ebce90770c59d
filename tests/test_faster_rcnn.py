"""Faster R-CNN held against torchvision's, and against what its users get wrong."""

import hashlib
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torchvision import ops
from torchvision.models import get_model_weights
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

import boxes
import faster_rcnn
from conftest import REAL_DATA, real
from declared import ROOT, Case
from identical import assert_same
from lab import data, weights

NAME = "fasterrcnn_resnet50_fpn"
TOO_LARGE = [NAME]   # for what compares classifiers; compared below
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}


def small(body=faster_rcnn.SmallBody, size=64):
    sizes = ((10,), (16,), (24,), (32,), (48,))[:len(body().channels) + 1]
    return faster_rcnn.FasterRCNN(
        faster_rcnn.backbone(body(), 16), faster_rcnn.RPN(16, sizes, after=(30, 30)),
        faster_rcnn.RoIHeads(16, 4, hidden_size=32, canonical=size, samples=32),
        sizes=(size, size))


def batch(channels=1, size=64):
    """Two images with light squares on them, and the squares."""
    images, targets = 0.1 * torch.rand(2, channels, size, size), []
    for image, corners in zip(images, [[(8, 10, 28, 30, 1), (36, 30, 60, 58, 2)],
                                       [(20, 16, 44, 40, 3)]]):
        for x1, y1, x2, y2, label in corners:
            image[:, y1:y2, x1:x2] += label / 4
        rows = torch.tensor(corners)
        targets.append({"boxes": rows[:, :4].float(), "labels": rows[:, 4]})
    return (list(images), targets), None


def body():
    return faster_rcnn.Body(faster_rcnn.BasicBlock, (1, 1, 1, 1))


CASES = {
    "FasterRCNN": Case(small, batch, lambda losses, _: sum(losses.values())),
    "FasterRCNN, a ResNet": Case(lambda: small(body), lambda: batch(3),
                                 lambda losses, _: sum(losses.values()))}


def reference(**options):
    """torchvision's, with weights that find something."""
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **options)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean"):
            value.uniform_(-0.2, 0.2)
        elif "bn" in key and key.endswith("weight"):
            value.uniform_(0.3, 0.6)
        elif key.endswith("bias"):
            value.uniform_(-0.1, 0.1)
        elif "predictor" in key:
            value.normal_(std=0.5)
        elif "rpn" in key:
            value.normal_(std=0.05)
    return model


@pytest.fixture(scope="module")
def both():
    """Ours and torchvision's with the same weights."""
    torch.manual_seed(0)
    theirs = reference(min_size=128, max_size=192, _skip_resize=True)
    ours = faster_rcnn.fasterrcnn_resnet50_fpn(sizes=(128, 192))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@torch.no_grad()
def test_identical_detections(both):
    """Of images of other sizes than the network's, too."""
    for sizes in ([(128, 192), (128, 160)], [(100, 150), (160, 90)], [(64, 300)]):
        images = [torch.rand(3, *size) for size in sizes]
        for ours, theirs in zip(*(model.eval()(images) for model in both)):
            assert len(theirs["boxes"])
            assert torch.equal(ours["labels"], theirs["labels"])
            for key in ("boxes", "scores"):
                torch.testing.assert_close(ours[key], theirs[key])


def test_identical_losses(both):
    """And gradients of all parameters, though both stages sample at random."""
    images = [torch.rand(3, 128, 192), torch.rand(3, 128, 160)]
    targets = [{"boxes": torch.tensor([[10.0, 10, 70, 60], [30, 40, 120, 120]]),
                "labels": torch.tensor([3, 7])}, NOTHING]
    losses = []
    for model in both:
        model.train().zero_grad()
        torch.manual_seed(1)
        losses.append(model(images, [{**target} for target in targets]))
        sum(losses[-1].values()).backward()
    torch.testing.assert_close(*losses)
    ours, theirs = (dict(model.named_parameters()) for model in both)
    for key, parameter in theirs.items():
        assert_same(ours[key].grad, parameter.grad, key)


def test_parameters(both):
    """Of torchvision's documentation, and with trainable batch norm."""
    facts = faster_rcnn.facts()
    assert facts["parameters"] == sum(p.numel() for p in both[1].parameters()) == (
        41_808_406)
    published = get_model_weights(NAME)["COCO_V1"].meta["num_params"]
    assert facts["frozen_parameters"] == published == 41_755_286


def test_sample():
    """As many, and the same ones, as torchvision's sampler."""
    labels = torch.randint(-1, 3, (200,))
    sampler = BalancedPositiveNegativeSampler(64, 0.25)
    torch.manual_seed(0)
    expected = [mask[0].nonzero().flatten() for mask in sampler([labels])]
    torch.manual_seed(0)
    for ours, theirs in zip(faster_rcnn.sample(labels, 64, 0.25), expected):
        assert torch.equal(ours.sort().values, theirs)


@pytest.mark.parametrize("canonical", [64, 224])
def test_pyramid_align(canonical):
    maps = {str(i): torch.randn(2, 4, 64 // 2 ** i, 64 // 2 ** i) for i in range(4)}
    corners = 120 * torch.rand(30, 2)
    rows = torch.cat([corners, corners + 2 ** (1 + 6 * torch.rand(30, 2))], 1)
    pool = ops.MultiScaleRoIAlign(list(maps), 7, 2, canonical_scale=canonical)
    expected = pool(maps, [rows[:10], rows[10:]], 2 * [(256, 256)])
    ours = faster_rcnn.pyramid_align(list(maps.values()), [rows[:10], rows[10:]],
                                     [4, 8, 16, 32], canonical)
    torch.testing.assert_close(ours, expected)


def test_our_roi_align_and_nms_would_do():
    """The models call torchvision's compiled ones: the results are the same."""
    x, rows = torch.randn(1, 4, 16, 16), torch.tensor([[0, 3.0, 4, 60, 50]])
    torch.testing.assert_close(
        boxes.roi_align(x, rows, 7, 1 / 4, 2, aligned=False),
        ops.roi_align(x, rows, 7, 1 / 4, 2))


# What users get wrong


def test_losses_in_training_detections_else():
    (images, targets), _ = batch()
    model = small()
    assert {"loss_classifier", "loss_box_reg", "loss_objectness",
            "loss_rpn_box_reg"} == model.train()(images, targets).keys()
    assert {"boxes", "labels", "scores"} == model.eval()(images)[0].keys()


def test_images_without_objects():
    (images, _), _ = batch()
    losses = small().train()(images, [NOTHING, NOTHING])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0, (
        "a loss of zero, because there was no target")


def test_label_0_is_the_background():
    """It is never returned."""
    (images, _), _ = batch()
    model = small().eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[0] = 3
        model.roi_heads.box_predictor.cls_score.bias[1] = 3
        found = torch.cat([each["labels"] for each in model(images)])
    assert len(found) and (found == 1).all()


def test_boxes_are_in_pixels_of_the_image():
    """Not of the image as the network sees it."""
    model = small(size=64).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] = 9
        found, = model([torch.rand(1, 128, 256)])
    assert found["boxes"][:, 2].max() > 200


# Data and published weights


@pytest.mark.parametrize("name", ["bccd", "face_mask"])
@real
def test_real_data(name, tmp_path):
    """A quick run, from photographs to average precision by class."""
    done = subprocess.run(
        [sys.executable, ROOT / "code/faster_rcnn.py", "--data", name, "--quick",
         "--size", "64", "--threads", "1", "--out", tmp_path], capture_output=True,
        text=True, env={**os.environ, "LAB_DATA": str(REAL_DATA)})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/faster_rcnn.json").exists()
    drawn = tmp_path / f"img/faster_rcnn-stages-{name}.svg"
    assert drawn.exists() == (name == "bccd"), "a licence that is not stated"


@pytest.mark.parametrize("older", [True, False])
def test_published(older, script, monkeypatch, tmp_path, capsys):
    """Laid where the download would put them, with torchvision's older names, too."""
    theirs = weights.freeze(reference()).eval()
    states = theirs.state_dict()
    if older:
        states = {
            re.sub(r"(conv|_blocks\.\d)(?:\.0)+\.(?=\w+$)", r"\1.", key): value
            for key, value in states.items()}
        assert {"backbone.fpn.inner_blocks.0.bias", "rpn.head.conv.bias"} < set(states)
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save(states, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    (folder / "new.pth").rename(folder / f"faster-{digest}.pth")
    monkeypatch.setattr(get_model_weights(NAME)["COCO_V1"].value, "url",
                        f"https://localhost/faster-{digest}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    Image.effect_noise((120, 90), 80).convert("RGB").save(tmp_path / "noise.png")
    image = torch.frombuffer(bytearray(
        Image.open(tmp_path / "noise.png").tobytes()), dtype=torch.uint8)
    with torch.no_grad():
        expected, = theirs([image.view(90, 120, 3).permute(2, 0, 1) / 255])
    assert not script("faster_rcnn", "--weights", "coco", "--image",
                      tmp_path / "noise.png", "--out", tmp_path)
    shown = [line for line in capsys.readouterr().out.splitlines() if " at " in line]
    assert len(shown) == (expected["scores"] >= 0.5).sum() > 0
    assert (tmp_path / f"img/{NAME}-noise.svg").exists()


def test_a_small_detector_learns_one_scene():
    """What is found is what is there."""
    (images, targets), _ = batch()
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(250):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
    for found, target in zip(model.eval()(images), targets):
        n = len(target["boxes"])
        best = found["scores"].topk(n).indices
        assert sorted(found["labels"][best].tolist()) == target["labels"].tolist()
        assert ops.box_iou(target["boxes"], found["boxes"][best]).amax(1).min() > 0.5


def test_scenes_have_the_classes_that_are_trained():
    args = SimpleNamespace(data="scenes", quick=True)
    assert len(data.load(args, size=32)[0].classes) == 11
