"""Spectral images as files: a PNG holds a beat's image exactly, with all that made it, so that it can be judged again.

The picture shows the logarithm of the magnitude, lowest frequency at the bottom; the exact numbers of all channels, the
features and the parameters lie in text chunks beside it. A picture from elsewhere has none of these: it is resized, its
brightness is taken for the logarithm, and everything else the model reads is neutral.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from dsp.spectrogram import BINS
from inference.features import NAMES, Rows
from inference.features_image import CHANNELS, COLUMNS, CONTRACT

KEY: Final = "rhythmwatch"
FORMAT: Final = 1
LOW: Final = -5.0
HIGH: Final = 1.5
"""Logarithm that is drawn black, and white."""

PIXELS: Final = 40_000_000
"""Most pixels of a picture that is opened."""


class PictureError(ValueError):
    """A file that is no spectral image; the message is one line for people."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A spectral image with what is known of it.

    Attributes
    ----------
    image : ndarray of float32, shape (CHANNELS, COLUMNS, BINS)
    features : ndarray of float32, shape (len(NAMES),)
    about : dict
        ``record``, ``r`` (sample at the record's rate), ``rate``, ``label``; empty for a picture from elsewhere.
    warnings : tuple of str
        What had to be supposed.
    """

    image: NDArray[np.float32]
    features: NDArray[np.float32]
    about: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether it holds the very numbers that the live pipeline judged."""
        return bool(self.about)

    def rows(self) -> Rows:
        """Give the one row that the beat model reads."""
        one = np.zeros(1, np.int64)
        return Rows(
            np.array([0, 1], np.int64), one, one, self.features[None], self.image[None].transpose(0, 1, 3, 2),
            np.zeros(1, np.float32), np.zeros(1, np.float32), one, np.zeros(1, np.uint8),
        )  # fmt: skip


def grey(log: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw the logarithm of the magnitude, shape (COLUMNS, BINS), as a picture of shape (BINS, COLUMNS)."""
    levels = np.clip((log.T[::-1] - LOW) / (HIGH - LOW) * 255, 0, 255)
    return np.asarray(np.rint(levels), np.uint8)


def to_png(image: NDArray[np.float32], features: NDArray[np.float32], about: dict[str, Any]) -> bytes:
    """Write a beat's image.

    Parameters
    ----------
    image : ndarray of float32, shape (CHANNELS, COLUMNS, BINS)
    features : ndarray of float32, shape (len(NAMES),)
    about : dict
        See `Picture.about`.

    Returns
    -------
    bytes
        PNG of COLUMNS x BINS grey pixels with text chunks.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text(KEY, json.dumps({"format": FORMAT, "image": asdict(CONTRACT), "about": about}))
    text.add_text(f"{KEY}-features", _packed(features), zip=False)
    text.add_text(f"{KEY}-channels", _packed(image), zip=False)
    out = io.BytesIO()
    Image.fromarray(grey(image[0])).save(out, "PNG", pnginfo=text)
    return out.getvalue()


def read_picture(data: bytes, neutral: NDArray[np.float32]) -> Picture:
    """Read a spectral image, ours or another.

    Parameters
    ----------
    data : bytes
        PNG or JPEG.
    neutral : ndarray of float32, shape (len(NAMES),)
        Features of an image that brings none: the mean that the model was normalised with.

    Returns
    -------
    Picture

    Raises
    ------
    PictureError
        No picture, too large, damaged, or made for other parameters than this version's.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height > PIXELS:
                raise PictureError(f"the picture has {opened.width} x {opened.height} pixels: make it smaller")
            if opened.width < 8 or opened.height < 8:
                raise PictureError(f"the picture has {opened.width} x {opened.height} pixels, 8 x 8 are the least")
            opened.load()
            if KEY in opened.info:
                return _ours(opened.info)
            size = f"{opened.width} x {opened.height}"
            small = opened.convert("L").resize((COLUMNS, BINS), Image.Resampling.BILINEAR)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("this is no PNG or JPEG picture") from error
    except Exception as error:  # the decoder raises many types on damaged files
        raise PictureError(f"the picture is damaged ({str(error)[:80]})") from error
    image = np.zeros((CHANNELS, COLUMNS, BINS), np.float32)
    image[0] = LOW + np.asarray(small, np.float32)[::-1].T / 255 * (HIGH - LOW)
    warnings = (
        f"from elsewhere: resized from {size} to {COLUMNS} x {BINS}, brightness taken for magnitude, the R peak "
        "supposed at five eighths of its width",
        "no RR interval, beat shape, phase or history of the patient is known: premature beats can't be told by timing",
    )
    return Picture(image, neutral.astype(np.float32), {}, warnings)


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), 6)).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    size = 4 * int(np.prod(shape))
    data = zlib.decompressobj().decompress(base64.b64decode(text), size + 1)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


def _ours(info: dict[Any, Any]) -> Picture:
    try:
        head = json.loads(info[KEY])
        made_for = {**head["image"], "channels": tuple(head["image"]["channels"])}
        if head["format"] != FORMAT or made_for != asdict(CONTRACT):
            raise PictureError("the image was made with other parameters than this version's: make it again")
        features = _unpacked(info[f"{KEY}-features"], (len(NAMES),))
        image = _unpacked(info[f"{KEY}-channels"], (CHANNELS, COLUMNS, BINS))
        return Picture(image, features, dict(head["about"]))
    except PictureError:
        raise
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise PictureError(f"the numbers in the image's text are damaged ({str(error)[:80]})") from error


def is_picture(name: str, data: bytes) -> bool:
    """Whether a file is to be read as a picture: by its first bytes or its name."""
    return (
        data[:4] == b"\x89PNG" or data[:3] == b"\xff\xd8\xff" or Path(name).suffix.lower() in (".png", ".jpg", ".jpeg")
    )
