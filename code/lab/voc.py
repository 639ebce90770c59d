"""Real data sets of photographs with boxes, in the format of Pascal VOC."""

from pathlib import Path
from xml.etree import ElementTree

import torch
from torch.nn import functional as F

from lab import UserError, files, images
from lab.scenes import Detections


def bccd(data_dir, size=320):
    """BCCD, blood cells: 292 + 72 images, red and white cells and platelets."""
    return _load("bccd", data_dir, size, ["RBC", "WBC", "Platelets"], "bccd/BCCD",
                 "Annotations", "JPEGImages", "ImageSets/Main/{}.txt",
                 ("trainval", "test"))


def face_mask(data_dir, size=320):
    """200 of Kaggle's face-mask-detection's images, 160 of them for training."""
    return _load("face_mask", data_dir, size,
                 ["with_mask", "without_mask", "mask_weared_incorrect"], "face_mask",
                 "annotations", "images", "{}.txt", ("train", "val"))


def _load(name, data_dir, size, classes, folder, annotations, pictures, lists, parts):
    """Two Detections; the longer side of each image has `size` pixels."""
    needed = [Path(folder) / lists.format(part) for part in parts]
    place = files.first(data_dir, needed)
    if not place:
        looked = ", ".join(str(each / folder) for each in files.places(data_dir))
        raise UserError(f"{name} is not in {looked}: put its {annotations} and "
                        f"{pictures} there")
    return [_read(name, place / folder, each.read_text("utf-8").split(), size, classes,
                  annotations, pictures) for each in (place / file for file in needed)]


def _read(name, folder, stems, size, classes, annotations, pictures):
    photographs, targets = [], []
    for stem in stems:
        photograph = images.read(folder / pictures / f"{stem}.jpg")
        pixels = torch.frombuffer(bytearray(photograph.tobytes()), dtype=torch.uint8)
        image = pixels.view(photograph.height, photograph.width, 3).permute(2, 0, 1)
        scale = size / max(image.shape)
        image = F.interpolate(image[None] / 255, scale_factor=scale, mode="bilinear",
                              antialias=True, recompute_scale_factor=True)[0]
        photographs.append(image)
        targets.append(target(folder / annotations / f"{stem}.xml", classes,
                              image.shape[1:], (photograph.height, photograph.width)))
    return Detections(photographs, targets, ["background", *classes], name)


def target(file, classes, size, original):
    """The boxes and labels of a VOC file, scaled from its image's height and width.

    VOC counts pixels from 1 and its last pixel is inside: a box from 1 to 10 is
    0..10 here. Boxes end at the image's edges; those without area are left out.
    """
    try:
        objects = ElementTree.parse(file).getroot().iter("object")
        rows = [([float(each.find(f"bndbox/{side}").text)
                  for side in ("xmin", "ymin", "xmax", "ymax")],
                 1 + classes.index(each.find("name").text)) for each in objects]
    except (OSError, ElementTree.ParseError, AttributeError, ValueError) as error:
        raise UserError(f"{file} is not an annotation of {', '.join(classes)} "
                        f"({error}): delete it and put the original there") from None
    rows = [(box, label) for box, label in rows if box[0] < box[2] and box[1] < box[3]]
    boxes = torch.tensor([box for box, _ in rows]).reshape(-1, 4)
    boxes -= torch.tensor([1.0, 1, 0, 0])
    scale = torch.tensor([size[1] / original[1], size[0] / original[0]]).repeat(2)
    edge = torch.tensor([size[1], size[0]]).repeat(2)
    boxes = torch.minimum((boxes * scale).clamp(min=0), edge)
    labels = torch.tensor([label for _, label in rows], dtype=torch.long)
    return {"boxes": boxes, "labels": labels}
