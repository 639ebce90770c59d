"""lab.images: any image file is read as its owner sees it, or one line says why not."""

import io
import os
import struct
import zlib

import numpy
import pytest
from PIL import Image, ImageCms

from conftest import one_line
from lab import UserError, images

GREY = numpy.array([[0, 51, 102], [153, 204, 255]], "uint8")
BLOCKS = numpy.kron(GREY, numpy.ones((16, 16), "uint8"))  # so that a JPEG is exact
UPRIGHT = {  # by EXIF's orientation of the stored image
    1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1], 5: GREY.T,
    6: GREY[::-1].T, 7: GREY[::-1, ::-1].T, 8: GREY[:, ::-1].T}


def read(file, tolerance=0):
    """The image's values, (H, W, 3), or (H, W) where they are all grey."""
    image = images.read(file)
    assert image.mode == "RGB"
    values = numpy.asarray(image).astype(int)
    grey = numpy.ptp(values, 2).max() <= tolerance
    return values[..., 0] if grey else values


def like_grey(file, tolerance=0):
    return numpy.abs(read(file, tolerance) - GREY).max() <= tolerance


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tif"])
def test_upright(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    file = tmp_path / f"image.{format}"
    Image.fromarray(BLOCKS).convert("RGB").save(file, exif=exif)
    found = read(file, tolerance=2)[8::16, 8::16]
    assert numpy.abs(found - UPRIGHT[orientation]).max() <= 2


NUMBERS = {
    "16 bits": (GREY.astype("uint16") * 257, "png"),
    "16 bits, TIFF": (GREY.astype("uint16") * 257, "tif"),
    "32 bits, small": (GREY.astype("int32"), "tif"),
    "32 bits": (GREY.astype("int32") * 8_000_000, "tif"),
    "32 bits, negative": (GREY.astype("int32") - 100, "tif"),
    "float in 0..1": (GREY.astype("float32") / 255, "tif"),
    "float in 0..255": (GREY.astype("float32"), "tif"),
    "float": (GREY.astype("float32") * 9 - 700, "tif"),
}


@pytest.mark.parametrize("values, format", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_more_than_8_bits(tmp_path, values, format):
    file = tmp_path / f"image.{format}"
    Image.fromarray(values).save(file)
    assert like_grey(file)


def test_dark_numbers_of_16_bits_stay_dark(tmp_path):
    Image.fromarray(GREY.astype("uint16")).save(tmp_path / "image.png")
    assert read(tmp_path / "image.png").max() == 1


def test_what_is_no_number_is_left_out(tmp_path):
    values = GREY.astype("float32") * 9 - 700
    values[0, 1], values[1, 1] = float("nan"), float("inf")
    Image.fromarray(values).save(tmp_path / "image.tif")
    found = read(tmp_path / "image.tif")
    assert found.tolist() == [[0, 0, 102], [153, 255, 255]]


def tiff(values, photometric):
    """A TIFF file, which Pillow cannot write with white as zero."""
    high, wide = values.shape
    content = values.astype("<u2").tobytes()
    tags = [(256, wide), (257, high), (258, 16), (259, 1), (262, photometric),
            (273, 8), (277, 1), (278, high), (279, len(content))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<I", 8 + len(content)) + content
            + struct.pack("<H", len(tags)) + entries + bytes(4))


@pytest.mark.parametrize("photometric, expected", [(0, 255 - GREY), (1, GREY)])
def test_white_or_black_is_zero(tmp_path, photometric, expected):
    file = tmp_path / "image.tif"
    file.write_bytes(tiff(GREY.astype("uint16") * 257, photometric))
    assert (read(file) == expected).all()


def test_16_bits_a_colour(tmp_path):
    """Stored big end first, as a PNG has them; Pillow only writes 8 bits."""
    colours = numpy.stack([GREY, GREY[::-1], GREY], 2).astype(">u2") * 257

    def chunk(kind, content):
        return (struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content)))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    (tmp_path / "image.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert (read(tmp_path / "image.png") == colours // 257).all()


def test_one_bit(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "image.png")
    assert (read(tmp_path / "image.png") == 255 * (GREY > 127)).all()


def see_through(mode):
    """An image of GREY in which black is transparent, and options to save it."""
    alpha = 255 * (GREY > 0).astype("uint8")
    if mode == "LA":
        return Image.fromarray(numpy.stack([GREY, alpha], 2)), {}
    if mode == "RGBA":
        return Image.fromarray(numpy.stack([GREY, GREY, GREY, alpha], 2)), {}
    image = Image.fromarray(GREY).convert(mode)
    return image, {"transparency": (0, 0, 0) if mode == "RGB" else 0}


@pytest.mark.parametrize("mode, format", [
    ("L", "png"), ("RGB", "png"), ("P", "png"), ("P", "gif"), ("LA", "png"),
    ("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "tif")])
def test_transparency_is_white(tmp_path, mode, format):
    image, options = see_through(mode)
    lossless = {"lossless": True} if format == "webp" else {}
    image.save(tmp_path / f"image.{format}", **options, **lossless)
    found = read(tmp_path / f"image.{format}")
    assert (found == numpy.where(GREY > 0, GREY, 255)).all()


def test_half_of_a_colour_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (2, 2), (200, 0, 0, 51)).save(tmp_path / "image.png")
    assert read(tmp_path / "image.png")[0, 0].tolist() == [244, 204, 204]


@pytest.mark.parametrize("format", ["jpg", "tif"])
def test_cmyk(tmp_path, format):
    """Also inverted, as Adobe's and Pillow's JPEG are."""
    Image.new("CMYK", (16, 16), (255, 0, 255, 51)).save(tmp_path / f"image.{format}")
    found = read(tmp_path / f"image.{format}")[0, 0]
    assert numpy.abs(found - [0, 204, 0]).max() <= 2


@pytest.mark.parametrize("format", ["gif", "png", "webp", "tif"])
def test_first_frame(tmp_path, format):
    first, second = (Image.new("RGB", (16, 16), color) for color in ("red", "blue"))
    first.save(tmp_path / f"image.{format}", save_all=True, append_images=[second])
    found = read(tmp_path / f"image.{format}")[0, 0]
    assert numpy.abs(found - [255, 0, 0]).max() <= 2


def test_colours_of_a_profile(tmp_path):
    """One with red and green exchanged; one that is damaged says nothing."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"xxxx").replace(b"gXYZ", b"rXYZ").replace(
        b"xxxx", b"gXYZ")
    file, image = tmp_path / "image.png", Image.new("RGB", (2, 2), "red")
    image.save(file, icc_profile=profile)
    assert read(file)[0, 0, 1] > 250 and read(file)[0, 0, 0] < 5
    image.save(file, icc_profile=b"damaged")
    assert read(file)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode, color, format", [
    ("RGB", (9, 90, 200), "jpg"), ("P", 0, "png"), ("1", 1, "png"),
    ("RGBA", (9, 90, 200, 255), "png"), ("I;16", 2570, "png"), ("F", 0.5, "tif")])
def test_a_large_image_is_thinned(tmp_path, monkeypatch, mode, color, format):
    """And turned, after that, by its orientation."""
    monkeypatch.setattr(images, "LARGE", 2500)
    exif = Image.Exif()
    exif[0x112] = 6
    file = tmp_path / f"image.{format}"
    Image.new(mode, (400, 100), color).save(file, exif=exif)
    found = images.read(file)
    assert found.size == (25, 100)
    expected = {"RGB": (9, 90, 200), "RGBA": (9, 90, 200), "P": (0, 0, 0),
                "1": (255, 255, 255), "I;16": (10, 10, 10), "F": (128, 128, 128)}[mode]
    assert numpy.abs(numpy.subtract(found.getpixel((9, 9)), expected)).max() <= 3


def test_of_a_line_of_pixels_the_middle():
    assert images.middle(Image.new("L", (1, 60_000))).size == (1, 8)
    middle = images.middle(Image.linear_gradient("L").resize((900, 100)))
    assert middle.size == (800, 100)
    assert images.middle(Image.new("L", (400, 300))).size == (400, 300)


def png(wide, high):
    """The beginning of a PNG file."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "png")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", wide, high)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


UNREADABLE = {
    "empty": (b"", "not an image"), "text": (b"no image", "not an image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PNG or JPEG"),
    "PDF": (b"%PDF-1.7\n", "PNG or JPEG"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "PNG or JPEG"),
    "bomb": (png(20_000, 20_000), "more than 178,956,970 pixels"),
    "no pixels": (png(0, 5), "not an image"),
    "lacks pixels": (png(9, 9), "PNG or JPEG"),
}


@pytest.mark.parametrize("content, words", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable(tmp_path, content, words):
    file = tmp_path / "image.png"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        images.read(file)
    one_line(error, str(file), words)


@pytest.mark.parametrize("format", ["jpg", "png", "gif", "webp", "tif", "bmp", "ppm"])
def test_cut_off(tmp_path, format):
    """Wherever it is: one line, or what is there of it."""
    noise = numpy.random.default_rng(0).integers(0, 256, (40, 40, 3), "uint8")
    file = tmp_path / f"image.{format}"
    Image.fromarray(noise).save(file)
    content = file.read_bytes()
    for length in range(0, len(content) - 40, max(1, len(content) // 50)):
        file.write_bytes(content[:length])
        with pytest.raises(UserError) as error:
            images.read(file)
        one_line(error, str(file))


def test_no_file(tmp_path):
    """A folder, a device, what is missing, and a fifo, which would never end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for file in (tmp_path, tmp_path / "missing.png", fifo):
        with pytest.raises(UserError) as error:
            images.read(file)
        one_line(error, f"{file} is not a file")
