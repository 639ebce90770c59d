"""Scenes with boxes, their evaluation as COCO's own code has it, and their drawing."""

import contextlib
import io
import math

import numpy
import pytest
import torch

from lab import data, detection, figures, scenes


@pytest.fixture(scope="module")
def sets():
    return data.scenes(48, 60, 40)


# Scenes ----------------------------------------------------------------------


def test_a_scene_is_an_image_and_a_target(sets):
    train, test = sets
    assert len(train) == 60 and len(test) == 40 and train.classes[1] == "0"
    image, target = train[3]
    assert image.shape == (1, 48, 48) and 0 <= image.min() and image.max() <= 1
    for _, target in [*train, *test]:
        n = len(target["labels"])
        assert target["boxes"].shape == (n, 4) and target["masks"].shape == (n, 48, 48)
        assert n == 0 or 1 <= target["labels"].min() <= target["labels"].max() <= 10
        assert target["masks"].sum(0).max() <= 1, "masks overlap"
        for box, mask in zip(target["boxes"].int().tolist(), target["masks"]):
            x1, y1, x2, y2 = box
            assert mask[y1:y2, x1:x2].sum() == mask.sum()
            inside = mask[y1:y2, x1:x2]
            assert inside.any(0)[[0, -1]].all() and inside.any(1)[[0, -1]].all()


def test_a_batch_is_a_list_of_images_and_one_of_targets(sets):
    images, targets = sets[0][torch.tensor([4, 0])]
    assert torch.equal(images[1], sets[0][0][0]) and targets[0] is sets[0][4][1]
    assert len(sets[0].first(7)) == 7


def test_scenes_are_endless_and_the_same_for_a_seed(sets):
    def first(*args, **options):
        return torch.stack(data.scenes.__wrapped__(48, *args, **options)[0].images[:20])
    assert torch.equal(first(60, 40), torch.stack(sets[0].images[:20]))
    assert torch.equal(first(300, 40), first(60, 40))
    assert not torch.equal(first(60, 40, 1), first(60, 40))


def test_no_digit_of_the_training_set_is_in_the_test_set(monkeypatch):
    light, dark = torch.ones(5, 1, 8, 8), torch.full((5, 1, 8, 8), 0.5)
    labels = torch.arange(5)
    monkeypatch.setattr(data, "_digits", lambda: ((light, labels), (dark, labels)))
    train, test = data.scenes.__wrapped__(48, 20, 20)
    assert all(image.max() > 0.99 for image in train.images)
    assert max(image.max() for image in test.images) <= 0.5 + 1e-6


def test_difficulty():
    def boxes(**options):
        return [target["boxes"] for target in data.scenes(64, 100, 1, **options)[0]
                .targets]

    assert {len(each) for each in boxes(number=(0, 1))} == {0, 1}
    assert {len(each) for each in boxes(number=(2, 2), scale=(0.2, 0.2))} == {2}
    large = torch.cat(boxes(scale=(0.5, 0.5)))
    assert 28 < (large[:, 2:] - large[:, :2]).max() <= 32 + 2   # blurred at both ends
    options = {"number": (5, 5), "scale": (0.4, 0.4)}
    together, apart = (sum(map(len, boxes(**options, overlap=overlap)))
                       for overlap in (0.3, 0))
    assert together > apart + 50
    plain, full = (torch.stack(data.scenes(64, 50, 1, fragments=n)[0].images).mean()
                   for n in (0, 20))
    assert full > 1.3 * plain


def test_captions_say_what_is_there_from_left_to_right(sets):
    for _, target in sets[0]:
        words = [scenes.WORDS[label - 1] for label in
                 target["labels"][target["boxes"][:, 0].argsort()]]
        said = target["caption"].replace(",", "").split()
        assert [word for word in said if word in scenes.WORDS] == words
    assert scenes._caption(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0)) == (
        "nothing")


def test_quick_scenes(monkeypatch):
    from types import SimpleNamespace
    train, test = data.load(SimpleNamespace(data="scenes", quick=True), size=32)
    assert (len(train), len(test)) == (64, 32) and train[0][0].shape == (1, 32, 32)


# Evaluation ------------------------------------------------------------------


def guesses(targets, seed, classes=4):
    """Detections near the targets, some twice, some of another class, and some alone.

    Scores are rounded, so that many are equal.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, generator=generator)

    found = []
    for target in targets:
        boxes = target["boxes"].repeat(2, 1)
        boxes = boxes + 8 * (random(*boxes.shape) - 0.5)
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        alone = 40 * random(2, 4)
        alone[:, 2:] += alone[:, :2]
        labels = torch.cat([target["labels"].repeat(2), torch.tensor([1, 2])])
        other = random(len(labels)) < 0.2
        labels = torch.where(other, (labels % classes) + 1, labels)
        kept = random(len(labels)) < 0.7
        found.append({"boxes": torch.cat([boxes, alone])[kept], "labels": labels[kept],
                      "scores": (10 * random(len(labels))).round()[kept] / 10})
    return found


def random_targets(n, seed, classes=4):
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for k in range(n):
        corners = 60 * torch.rand(k % 5, 2, generator=generator)
        sides = 5 + 50 * torch.rand(k % 5, 2, generator=generator)
        targets.append({"boxes": torch.cat([corners, corners + sides], 1),
                        "labels": torch.randint(1, classes + 1, (k % 5,),
                                                generator=generator)})
    return targets


def coco(detections, targets, areas=None, recalls=None, thresholds=None):
    """pycocotools' precision (T, R, K, A) and recall (T, K, A)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def listed(entries):
        for image, entry in enumerate(entries):
            sides = entry["boxes"][:, 2:] - entry["boxes"][:, :2]
            rows = torch.cat([entry["boxes"][:, :2], sides], 1).double()
            for i, (row, label) in enumerate(zip(rows, entry["labels"].tolist())):
                yield {"image_id": image, "category_id": label, "bbox": row.tolist(),
                       "area": row[2:].prod().item(), "iscrowd": 0,
                       **({"score": entry["scores"][i].item()}
                          if "scores" in entry else {})}

    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        for dataset, entries in [(truth, targets), (found, detections)]:
            labels = {label for target in targets for label in
                      target["labels"].tolist()}
            dataset.dataset = {
                "images": [{"id": i} for i in range(len(targets))],
                "categories": [{"id": label} for label in sorted(labels)],
                "annotations": [{"id": i + 1, **each}
                                for i, each in enumerate(listed(entries))]}
            dataset.createIndex()
        judge = COCOeval(truth, found, "bbox")
        judge.params.areaRng = [[0, 1e10], *(areas or [])]
        judge.params.areaRngLbl = [str(i) for i in range(len(judge.params.areaRng))]
        if recalls is not None:
            judge.params.recThrs = recalls
        if thresholds is not None:
            judge.params.iouThrs = thresholds
        judge.evaluate()
        judge.accumulate()
    return (judge.eval["precision"][..., -1].astype(float),
            judge.eval["recall"][..., -1])


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed):
    targets = random_targets(30, seed)
    found = guesses(targets, seed)
    areas = {"small": (0, 400), "large": (400, 1e10)}
    precision, recall = coco(found, targets, list(areas.values()))
    ours = detection.evaluate(found, targets, areas)
    assert ours == pytest.approx({
        "AP": precision[..., 0].mean(), "AP50": precision[0, ..., 0].mean(),
        "AP75": precision[5, ..., 0].mean(), "AR": recall[..., 0].mean(),
        "AP_small": precision[..., 1].mean(), "AP_large": precision[..., 2].mean()})
    names = ["background", *"abcd"]
    assert list(detection.by_class(found, targets, names).values()) == pytest.approx(
        list(precision[0, ..., 0].mean(0)))


def test_a_perfect_detector_and_one_that_finds_nothing(sets):
    targets = [target for _, target in sets[1]]
    perfect = [{**target, "scores": torch.ones(len(target["labels"]))}
               for target in targets]
    assert detection.evaluate(perfect, targets) == dict.fromkeys(
        ("AP", "AP50", "AP75", "AR"), 1)
    nothing = [{key: value[:0] for key, value in each.items() if key != "caption"}
               for each in perfect]
    assert detection.evaluate(nothing, targets)["AP"] == 0


def test_images_without_objects():
    """A detection there counts against its class; without any target it is NaN."""
    target = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    right = {**target, "scores": torch.tensor([0.5])}
    wrong = {**target, "scores": torch.tensor([0.9])}
    assert detection.evaluate([right, wrong], [target, empty])["AP"] == pytest.approx(
        0.5)
    assert math.isnan(detection.evaluate([wrong], [empty])["AP"])


def test_a_box_without_area_is_no_error():
    target = {"boxes": torch.tensor([[3.0, 3, 3, 3], [0, 0, 9, 9]]),
              "labels": torch.tensor([1, 1])}
    found = {**target, "scores": torch.tensor([0.9, 0.8])}
    assert 0 < detection.evaluate([found], [target])["AP"] < 1


def test_proposal_recall():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    targets = [{"boxes": boxes}, {"boxes": boxes[:0]}]
    proposals = [torch.tensor([[50.0, 0, 60, 10], [1, 0, 11, 10]]), torch.zeros(0, 4)]
    assert [detection.proposal_recall(proposals, targets, n) for n in (1, 2)] == [
        0, 0.5]
    assert detection.proposal_recall(proposals, targets, 2, threshold=0.9) == 0


# Drawing ---------------------------------------------------------------------


def test_boxes_are_drawn_with_classes_and_scores():
    target = {"boxes": torch.tensor([[0.0, 0, 5, 5], [4, 4, 10, 10]]),
              "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.5, 0.981])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    figure = figures.boxes(list(torch.rand(2, 1, 10, 10)), [target, empty],
                           ["background", "cat", "dog"], captions=["one", "two"])
    axis, = figure.axes
    assert [text.get_text() for text in axis.texts] == [
        "cat 50 %", "dog 98 %", "one", "two"]
    frames = [patch for patch in axis.patches if not patch.get_fill()]
    wide = frames[0].get_width()
    assert len(frames) == 2
    assert frames[1].get_x() - frames[0].get_x() == pytest.approx(0.8 * wide)
    assert all(0 <= text.get_position()[0] <= 1168 for text in axis.texts)


def test_boxes_have_their_own_colours():
    target = {"boxes": torch.tensor([[0.0, 0, 5, 5], [4, 4, 10, 10]]),
              "roles": ["idea", "control"]}
    figure = figures.boxes([numpy.zeros((10, 10))], [target])
    colours = {patch.get_edgecolor() for patch in figure.axes[0].patches}
    assert len(colours) == 2 and not figure.axes[0].texts
