"""How good detections are: average precision by COCO's rules, recall of proposals."""

import numpy
from torchvision.ops import box_iou

THRESHOLDS = numpy.linspace(0.5, 0.95, 10)   # of IoU
RECALLS = numpy.linspace(0, 1, 101)          # at which precision is read
MOST = 100                                   # detections of an image that count
EVERYTHING = (0, float("inf"))


def evaluate(detections, targets, areas=None):
    """COCO's average precision: {"AP", "AP50", "AP75", "AR", and "AP_NAME" an area}.

    detections: for each image a dict of boxes (N, 4), labels (N) and scores (N);
    targets: for each image one of boxes and labels. areas: {name: (least, greatest
    area of a box in square pixels)}. Each is a mean over the classes that targets have,
    AP over the IoU thresholds from 0.5 to 0.95, AP50 and AP75 of one; AR is the recall
    that the detections reach, a mean over the same thresholds. NaN without targets.
    """
    precision, recall = _curves(detections, targets, EVERYTHING)
    found = {"AP": precision.mean(), "AP50": precision[:, 0].mean(),
             "AP75": precision[:, 5].mean(), "AR": recall.mean()} if len(
                 precision) else dict.fromkeys(("AP", "AP50", "AP75", "AR"), numpy.nan)
    for name, area in (areas or {}).items():
        precision, _ = _curves(detections, targets, area)
        found[f"AP_{name}"] = precision.mean() if len(precision) else numpy.nan
    return {key: float(value) for key, value in found.items()}


def by_class(detections, targets, classes):
    """AP50 of each class that targets have, {its name: AP50}."""
    labels = _labels(targets)
    precision, _ = _curves(detections, targets, EVERYTHING)
    return {classes[label]: float(value)
            for label, value in zip(labels, precision[:, 0].mean(1))}


def proposal_recall(proposals, targets, n, threshold=0.5):
    """Share of all boxes of targets that one of the first n proposals covers.

    proposals: for each image (N, 4), the best first. Covers: IoU at least `threshold`.
    """
    covered = total = 0
    for boxes, target in zip(proposals, targets):
        total += len(target["boxes"])
        if len(boxes) and len(target["boxes"]):
            iou = box_iou(target["boxes"], boxes[:n])
            covered += (iou.amax(1) >= threshold).sum().item()
    return covered / total


def _labels(targets):
    """The labels that occur, in order."""
    return sorted({label for target in targets for label in target["labels"].tolist()})


def _curves(detections, targets, area):
    """Precision (K, T, R) and recall (K, T) of the classes with targets in an area."""
    precisions, recalls = [], []
    for label in _labels(targets):
        scores, hits, ignored, count = [], [], [], 0
        for detection, target in zip(detections, targets, strict=True):
            matched = _match(detection, target, label, area)
            for every, one in zip((scores, hits, ignored), matched):
                every.append(one)
            count += matched[3]
        if count:
            curve = _curve(numpy.concatenate(scores), numpy.concatenate(hits, 1),
                           numpy.concatenate(ignored, 1), count)
            precisions.append(curve[0])
            recalls.append(curve[1])
    return numpy.array(precisions), numpy.array(recalls)


def _match(detection, target, label, area):
    """Match the detections of a class in an image with its targets, the best first.

    Returns scores (N), hits and ignored (T, N), and how many targets count. A target
    outside the area neither counts nor harms; nor does a detection outside it that
    matches nothing.
    """
    chosen = detection["labels"] == label
    order = detection["scores"][chosen].argsort(descending=True, stable=True)[:MOST]
    boxes = detection["boxes"][chosen][order]
    scores = detection["scores"][chosen][order].numpy()
    truth = target["boxes"][target["labels"] == label]
    apart = _outside(truth, area)
    iou = box_iou(boxes.double(), truth.double()).numpy()                  # (N, G)
    taken = numpy.zeros((len(THRESHOLDS), len(truth)), bool)
    hits, ignored = numpy.zeros((2, len(THRESHOLDS), len(boxes)), bool)
    outside = _outside(boxes, area)
    for i, row in enumerate(iou if len(truth) else ()):
        fits = ~taken & (row >= THRESHOLDS[:, None])                       # (T, G)
        better = fits & ~apart
        fits = numpy.where(better.any(1, keepdims=True), better, fits)
        hits[:, i] = fits.any(1)
        last = numpy.where(fits, row, -1)[:, ::-1].argmax(1)   # of equal ones
        best = len(truth) - 1 - last
        taken[hits[:, i], best[hits[:, i]]] = True
        ignored[:, i] = hits[:, i] & apart[best]
    ignored |= ~hits & outside
    return scores, hits, ignored, (~apart).sum()


def _outside(boxes, area):
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1).numpy()
    return (sizes < area[0]) | (sizes > area[1])


def _curve(scores, hits, ignored, count):
    """Precision at RECALLS (T, R), and the recall reached (T), over all images."""
    order = numpy.argsort(-scores, kind="stable")
    precisions, recalls = numpy.zeros((len(THRESHOLDS), len(RECALLS))), []
    for row, hit, out in zip(precisions, hits[:, order], ignored[:, order]):
        right, wrong = (hit & ~out).cumsum(), (~hit & ~out).cumsum()
        recall = right / count
        precision = right / numpy.maximum(right + wrong, 1)
        envelope = numpy.maximum.accumulate(precision[::-1])[::-1]
        places = numpy.searchsorted(recall, RECALLS, side="left")
        reached = places < len(envelope)
        row[reached] = envelope[places[reached]]
        recalls.append(recall[-1] if len(recall) else 0)
    return precisions, numpy.array(recalls)
