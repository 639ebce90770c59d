"""lab.voc: photographs with boxes, and what is wrong with their files."""

import pytest
import torch
from PIL import Image

from conftest import REAL_DATA, one_line, real
from lab import UserError, data, voc

OBJECT = ("<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
          "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>")


def annotation(*objects):
    return "<annotation>" + "".join(OBJECT.format(*each) for each in objects) + (
        "</annotation>")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """face_mask with one image in each part."""
    monkeypatch.delenv("LAB_DATA", raising=False)
    place = tmp_path / "face_mask"
    for part in ("images", "annotations"):
        (place / part).mkdir(parents=True)
    for part in ("train", "val"):
        (place / f"{part}.txt").write_text(f"{part}1\n")
        Image.new("RGB", (200, 100), "red").save(place / f"images/{part}1.jpg")
        (place / f"annotations/{part}1.xml").write_text(annotation(
            ("without_mask", 1, 1, 100, 50), ("with_mask", 101, 51, 201, 100),
            ("with_mask", 7, 7, 7, 9)))
    return place


def test_boxes_begin_at_0_and_end_at_the_edge(folder):
    """And are scaled with the image; one without area is left out."""
    train, test = voc.face_mask(folder.parent, size=100)
    image, target = train[0]
    assert image.shape == (3, 50, 100) and image[0].min() > 0.9 and len(test) == 1
    assert target["boxes"].tolist() == [[0, 0, 50, 25], [50, 25, 100, 50]]
    assert target["labels"].tolist() == [2, 1]
    assert train.classes[2] == "without_mask"


def test_an_image_without_objects(folder):
    (folder / "annotations/train1.xml").write_text(annotation())
    target = voc.face_mask(folder.parent)[0][0][1]
    assert target["boxes"].shape == (0, 4) and target["labels"].dtype == torch.int64


@pytest.mark.parametrize("text", ["", "<annotation>", annotation(("cat", 1, 1, 2, 2)),
                                  annotation(("with_mask", "one", 1, 2, 2))])
def test_a_damaged_annotation_is_named(folder, text):
    file = folder / "annotations/train1.xml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        voc.face_mask(folder.parent)
    one_line(error, str(file), "with_mask")


def test_without_data_one_line_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.delenv("LAB_DATA", raising=False)
    with pytest.raises(UserError) as error:
        voc.bccd(tmp_path)
    one_line(error, "bccd", str(tmp_path), "JPEGImages")


@real
@pytest.mark.parametrize("name, images, counts", [
    ("bccd", (292, 72), [4153, 372, 361]), ("face_mask", (160, 40), [560, 170, 81])])
def test_real_data(name, images, counts, monkeypatch, tmp_path):
    """As many as its README says; in bccd two boxes have no area."""
    monkeypatch.setenv("LAB_DATA", str(REAL_DATA))
    sets = data.REAL[name](tmp_path, size=160)
    assert tuple(map(len, sets)) == images
    labels = torch.cat([target["labels"] for part in sets for _, target in part])
    assert labels.bincount()[1:].tolist() == counts
    for _, target in sets[0]:
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
