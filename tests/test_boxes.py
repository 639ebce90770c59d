"""Every function of code/boxes.py, held against torchvision's and pycocotools' own."""

from itertools import product

import numpy
import pytest
import torch
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

import boxes
from test_lab_detection import coco, guesses, random_targets

DEGENERATE = torch.tensor([
    [0.0, 0, 10, 10], [10, 0, 20, 10],   # touch
    [0, 0, 10, 10],                      # twice the same
    [2, 2, 4, 4],                        # in another
    [5, 5, 5, 5], [5, 0, 5, 10]])        # without area
NOTHING = torch.zeros(0, 4)


def random_boxes(n, size=100, whole=False):
    corners = size * torch.rand(n, 2)
    found = torch.cat([corners, corners + 1 + size / 2 * torch.rand(n, 2)], 1)
    return found.round() if whole else found


CASES_OF_BOXES = [
    pytest.param(lambda: (random_boxes(20), random_boxes(30)), id="random"),
    pytest.param(lambda: (DEGENERATE, DEGENERATE), id="degenerate"),
    pytest.param(lambda: (NOTHING, DEGENERATE), id="none"),
    pytest.param(lambda: (DEGENERATE, NOTHING), id="no others")]


@pytest.mark.parametrize("make", CASES_OF_BOXES)
@pytest.mark.parametrize("name", ["box_iou", "generalized_box_iou"])
def test_box_iou(name, make):
    a, b = make()
    torch.testing.assert_close(getattr(boxes, name)(a, b), getattr(ops, name)(a, b),
                               equal_nan=True)
    torch.testing.assert_close(boxes.box_area(a), ops.box_area(a))


def test_iou_of_boxes_without_area_is_no_number():
    """So they are dropped before training: a loss would become NaN."""
    assert boxes.box_iou(DEGENERATE[4:5], DEGENERATE[4:5]).isnan().all()
    assert boxes.box_iou(DEGENERATE[4:5], DEGENERATE[:1]) == 0


def test_giou_pulls_boxes_together_where_iou_does_not():
    a, b = (torch.tensor([[x, 0.0, x + 4, 4]], requires_grad=True) for x in (0.0, 9.0))
    for measured, pulls in [(boxes.box_iou, False), (boxes.generalized_box_iou, True)]:
        gradient, = torch.autograd.grad(measured(a, b).sum(), a)
        assert bool(gradient.any()) == pulls


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_nms(threshold):
    for found in (random_boxes(200, 60), random_boxes(200, 20, whole=True), DEGENERATE,
                  NOTHING):
        scores = torch.rand(len(found))
        assert boxes.nms(found, scores, threshold).tolist() == (
            ops.nms(found, scores, threshold).tolist())


def test_nms_of_equal_scores_keeps_the_first():
    scores = torch.ones(len(DEGENERATE))
    assert boxes.nms(DEGENERATE, scores, 0.5).tolist() == (
        ops.nms(DEGENERATE, scores, 0.5).tolist()) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_batched_nms(threshold):
    for found in (random_boxes(200, 60), DEGENERATE, NOTHING):
        scores, labels = torch.rand(len(found)), torch.randint(4, (len(found),))
        assert boxes.batched_nms(found, scores, labels, threshold).tolist() == (
            ops.batched_nms(found, scores, labels, threshold).tolist())


def test_anchors():
    sizes, ratios = ((32, 64), (128, 256)), ((0.5, 1.0, 2.0),) * 2
    generator = AnchorGenerator(sizes, ratios)
    maps = [torch.zeros(1, 8, 12, 15), torch.zeros(1, 8, 5, 7)]
    expected, = generator(ImageList(torch.zeros(1, 3, 96, 120), [(96, 120)]), maps)
    ours = [boxes.anchors((H, W), (96 // H, 120 // W), boxes.base_anchors(size, ratio))
            for (*_, H, W), size, ratio in zip([x.shape for x in maps], sizes, ratios)]
    torch.testing.assert_close(torch.cat(ours), expected)


def test_coding():
    truth, anchors = random_boxes(50), random_boxes(50)
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    deltas = boxes.encode(truth, anchors)
    torch.testing.assert_close(deltas, coder.encode([truth], [anchors])[0])
    torch.testing.assert_close(boxes.decode(deltas, anchors), truth)
    wild = 10 * torch.randn(50, 4)
    torch.testing.assert_close(boxes.decode(wild, anchors),
                               coder.decode(wild, [anchors])[:, 0])


def test_a_box_without_area_has_no_code():
    deltas = boxes.encode(DEGENERATE[4:5], DEGENERATE[:1])
    assert deltas.isinf().any()


@pytest.mark.parametrize("rescue", [False, True])
def test_match(rescue):
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=rescue)
    for _ in range(5):
        iou = boxes.box_iou(random_boxes(6), random_boxes(200))
        assert torch.equal(boxes.match(iou, 0.3, 0.7, rescue), matcher(iou))


def test_match_without_targets_is_all_background():
    matched = boxes.match(torch.zeros(0, 7), 0.3, 0.7, rescue=True)
    assert matched.tolist() == 7 * [boxes.BACKGROUND]


def rois(n=20, size=160):
    found = random_boxes(n, size / 2).clamp(max=size)
    return torch.cat([torch.randint(2, (n, 1)).float(), found], 1)


EDGES = torch.tensor([
    [0, 0.0, 0, 160, 160], [1, 100, 100, 160, 160], [1, 7, 7, 7, 7], [0, 3, 5, 4, 6]])


@pytest.mark.parametrize("output_size", [1, 2, 7])
@pytest.mark.parametrize("where", [rois, lambda: EDGES, lambda: EDGES[:0]],
                         ids=["random", "edges", "none"])
def test_roi_pool(where, output_size):
    features, regions = torch.randn(2, 3, 20, 20, requires_grad=True), where()
    ours = boxes.roi_pool(features, regions, output_size, 1 / 8)
    theirs = ops.roi_pool(features, regions, output_size, 1 / 8)
    assert_same_gradient(ours, theirs, features)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("output_size, samples", [(1, 1), (7, 2), (3, 4)])
def test_roi_align(output_size, samples, aligned):
    for regions in (rois(), EDGES, EDGES[:0], rois(5, 400)):
        features = torch.randn(2, 3, 20, 24, requires_grad=True)
        ours = boxes.roi_align(features, regions, output_size, 1 / 8, samples, aligned)
        theirs = ops.roi_align(features, regions, output_size, 1 / 8, samples, aligned)
        assert_same_gradient(ours, theirs, features)


def assert_same_gradient(ours, theirs, features):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    if len(theirs):
        upstream = torch.randn_like(theirs)
        torch.testing.assert_close(*(torch.autograd.grad(each, features, upstream)[0]
                                     for each in (ours, theirs)), atol=1e-4, rtol=1e-4)


def test_a_quarter_of_a_cell_moves_roi_align_and_not_roi_pool():
    """A ramp of slope 1: align reads the shift, pool does not see it."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    region = torch.tensor([[0, 16.0, 16, 80, 80]])
    moved = region + torch.tensor([0, 2.0, 0, 2, 0])      # a quarter of 8 pixels
    still, shifted = (boxes.roi_align(ramp, each, 4, 1 / 8) for each in (region, moved))
    torch.testing.assert_close(shifted - still, torch.full((1, 1, 4, 4), 0.25))
    assert torch.equal(boxes.roi_pool(ramp, region, 4, 1 / 8),
                       boxes.roi_pool(ramp, moved, 4, 1 / 8))


def test_find_hits():
    target = torch.tensor([[0.0, 0, 10, 10]])
    found = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]])
    assert boxes.find_hits(found, target).tolist() == [True, False, False]
    assert not boxes.find_hits(found, NOTHING).any()
    assert len(boxes.find_hits(NOTHING, target)) == 0


@pytest.mark.parametrize("threshold, seed", list(product([0.5, 0.75], range(3))))
def test_average_precision(threshold, seed):
    """With 101 and with 11 points as pycocotools; the area as summed by hand."""
    targets = [{**target, "labels": torch.ones_like(target["labels"])}
               for target in random_targets(32, seed)]
    found = guesses(targets, seed, classes=1)
    for image in found:
        image["labels"] = torch.ones_like(image["labels"])
        order = image["scores"].argsort(descending=True, stable=True)
        image.update({key: value[order] for key, value in image.items()})
    scores = torch.cat([image["scores"] for image in found])
    hits = torch.cat([boxes.find_hits(image["boxes"], target["boxes"], threshold)
                      for image, target in zip(found, targets)])
    n = sum(len(target["boxes"]) for target in targets)
    assert n == 61   # a prime: no recall is that of a rule, but for rounding
    precision, recall = boxes.precision_recall(scores, hits, n)
    for points in (11, 101):
        expected, _ = coco(found, targets, recalls=numpy.linspace(0, 1, points),
                           thresholds=[threshold])
        ours = boxes.average_precision(precision, recall, points)
        assert ours.item() == pytest.approx(expected.mean(), abs=1e-6)
    area, before = 0, 0
    for r in recall.unique().tolist():
        area += (r - before) * precision[recall >= r].max().item()
        before = r
    ours = boxes.average_precision(precision, recall)
    assert ours.item() == pytest.approx(area, abs=1e-5)


def test_average_precision_of_nothing_is_zero():
    precision, recall = boxes.precision_recall(
        torch.zeros(0), torch.zeros(0, dtype=torch.bool), 3)
    assert [boxes.average_precision(precision, recall, points).item()
            for points in (None, 11)] == [0, 0]


def test_facts():
    facts = boxes.facts()
    assert facts["iou_half"] == pytest.approx(1 / 3)
    assert facts["anchors_of_600x800"] == 37 * 50 * 9
