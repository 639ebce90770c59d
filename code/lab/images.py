"""Any image file as its owner sees it."""

import io
import math
import warnings

from lab import UserError

LARGE = 2 ** 25  # pixels; an image with more is thinned while it is read


def read(file):
    """The image in a file: upright, in sRGB, on white, 8 bits a channel (PIL, RGB).

    Of several frames or pages it is the first. Integers of 16 bits are divided by
    257. Other numbers that do not fit into 0..255 (or, of floats, 0..1) are scaled
    from the least to the greatest of them. Raises UserError for what is no image,
    is damaged, or has more pixels than Pillow takes (179 million).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not file.is_file():  # to open a fifo would wait for ever
        raise UserError(f"{file} is not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                image.draft(None, (4096, 4096))  # a large JPEG is decoded at 1/2 … 1/8
                profile = image.info.get("icc_profile")
                white_is_zero = getattr(image, "tag_v2", {}).get(262) == 0  # TIFF
                image = ImageOps.exif_transpose(_thinned(image))
                if image.mode.startswith(("I", "F")):
                    image = _eight_bits(image, white_is_zero)
                return _srgb(_on_white(image), profile)
    except UnidentifiedImageError:
        raise UserError(f"{file} is not an image of a known format: save it as PNG "
                        "or JPEG") from None
    except Image.DecompressionBombError:
        raise UserError(f"{file} has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: "
                        "make it smaller") from None
    except PermissionError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except Exception as error:  # what a decoder says of a damaged file is endless
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is not an image that can be read ({reason}): save it "
                        "again as PNG or JPEG") from None


def middle(image, ratio=8):
    """Crop an image to at most `ratio` times its shorter side.

    A network sees the middle square; a line of pixels, enlarged, would fill memory.
    """
    wide, high = (min(side, ratio * other)
                  for side, other in zip(image.size, image.size[::-1]))
    left, top = (image.width - wide) // 2, (image.height - high) // 2
    return image.crop((left, top, left + wide, top + high))


def _thinned(image):
    """Every n-th pixel of a large image, so that no further copy of it is made."""
    from PIL import Image

    image.load()
    n = math.ceil(math.sqrt(image.width * image.height / LARGE))
    size = (max(1, image.width // n), max(1, image.height // n))
    return image if n == 1 else image.resize(size, Image.Resampling.NEAREST)


def _eight_bits(image, white_is_zero):
    """A greyscale image of other numbers than bytes, in mode L."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype("float32")
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    if image.mode.startswith("I;16"):
        values = values / 257
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low or 1))
    values = np.nan_to_num(values.clip(0, 255)).round().astype("uint8")
    return Image.fromarray(255 - values if white_is_zero else values)


def _on_white(image):
    """The image without transparency."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def _srgb(image, profile):
    """The image in RGB, its colours converted if it comes with a profile of them."""
    from PIL import ImageCms

    if image.mode not in ("L", "RGB", "CMYK"):
        profile = None
    if profile:
        try:
            return ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile, or one of other channels, says nothing
    return image.convert("RGB")
