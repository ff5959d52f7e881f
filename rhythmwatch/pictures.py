"""Spectral images as files: a PNG holds a beat's image exactly, with all that made it, so that it can be judged again.

The picture shows the logarithm of the magnitude, lowest frequency at the bottom; the exact numbers of all channels, the
features and the parameters lie in text chunks beside it. A picture from elsewhere has none of these: it is resized, its
brightness is taken for the logarithm, and everything else the model reads is neutral.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from dsp import spectrogram
from dsp.layout import BLOCK, FS, Peaks, Signal
from dsp.spectrogram import BINS
from inference.features import NAMES, Rows
from inference.features_image import CHANNELS, COLUMNS, CONTRACT
from rhythmwatch.quantise import loudness

KEY: Final = "rhythmwatch"
FORMAT: Final = 1
LOW: Final = -5.0
HIGH: Final = 1.5
"""Logarithm that is drawn black, and white."""

_FEATURES: Final = hashlib.sha256("\n".join(NAMES).encode()).hexdigest()[:16]

SHOWN: Final = 5
"""Seconds of a rhythm window that are drawn: a verdict is the mean of two windows of 4 s."""

LONGEST: Final = 120
"""Most seconds that an image of a window may carry."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The window of a rhythm verdict with what came before it.

    Attributes
    ----------
    signal : Signal
        Of one patient, whole seconds, up to the verdict.
    peaks : Peaks
        Its beats.
    about : dict
        ``record``, ``label``.
    """

    signal: Signal
    peaks: Peaks
    about: dict[str, Any]

    def drawn(self) -> NDArray[np.uint8]:
        """Spectrogram of the last `SHOWN` seconds, lowest frequency at the bottom, shape (BINS, columns)."""
        states, slot = spectrogram.new_states(1), np.zeros(1, np.int64)
        spectrogram.reset(states, slot, self.signal.start)
        columns = spectrogram.step(states, slot, self.signal)
        shown = slice(-SHOWN * FS // spectrogram.HOP, None)
        return np.ascontiguousarray(loudness(columns.re, columns.im)[shown].T[::-1])


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
    head = {"format": FORMAT, "kind": "beat", "image": asdict(CONTRACT), "features": _FEATURES, "about": about}
    text.add_text(KEY, json.dumps(head))
    text.add_text(f"{KEY}-features", _packed(features), zip=False)
    text.add_text(f"{KEY}-channels", _packed(image), zip=False)
    out = io.BytesIO()
    Image.fromarray(grey(image[0])).save(out, "PNG", pnginfo=text)
    return out.getvalue()


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """Open a picture that a person gave, within limits, with its pixels read.

    Raises
    ------
    PictureError
        No PNG or JPEG, too large, too small or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if image.width * image.height > PIXELS:
            raise PictureError(f"the picture has {image.width} x {image.height} pixels: make it smaller")
        if image.width < 8 or image.height < 8:
            raise PictureError(f"the picture has {image.width} x {image.height} pixels, 8 x 8 are the least")
        image.load()
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("this is no PNG or JPEG picture") from error
    except Exception as error:  # the decoder raises many types on damaged files
        raise PictureError(f"the picture is damaged ({str(error)[:80]})") from error
    with image:
        yield image


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
    with opened(data) as picture:
        if KEY in picture.info:
            head = _head(picture.info)
            if head.get("kind") == "beat":
                return _ours(head, picture.info)
        size = f"{picture.width} x {picture.height}"
        small = picture.convert("L").resize((COLUMNS, BINS), Image.Resampling.BILINEAR)
    image = np.zeros((CHANNELS, COLUMNS, BINS), np.float32)
    image[0] = LOW + np.asarray(small, np.float32)[::-1].T / 255 * (HIGH - LOW)
    supposed = (
        f"from elsewhere: resized from {size} to {COLUMNS} x {BINS}, brightness taken for magnitude, the R peak "
        "supposed at five eighths of its width",
        "no RR interval, beat shape, phase or history of the patient is known: premature beats can't be told by timing",
    )
    return Picture(image, neutral.astype(np.float32), {}, supposed)


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), 6)).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    size = 4 * int(np.prod(shape))
    data = zlib.decompressobj().decompress(base64.b64decode(text), size + 1)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


def _head(info: dict[Any, Any]) -> dict[str, Any]:
    try:
        head = json.loads(info[KEY])
        if head["format"] != FORMAT:
            raise PictureError("the image was made by another version of this program: make it again")
        return {"kind": "beat", **head}
    except PictureError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise PictureError(f"the numbers in the image's text are damaged ({str(error)[:80]})") from error


def _ours(head: dict[str, Any], info: dict[Any, Any]) -> Picture:
    try:
        made_for = {**head["image"], "channels": tuple(head["image"]["channels"])}
        if made_for != asdict(CONTRACT) or head["features"] != _FEATURES:
            raise PictureError("the image was made with other parameters than this version's: make it again")
        features = _unpacked(info[f"{KEY}-features"], (len(NAMES),))
        image = _unpacked(info[f"{KEY}-channels"], (CHANNELS, COLUMNS, BINS))
        return Picture(image, features, dict(head["about"]))
    except PictureError:
        raise
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise PictureError(f"the numbers in the image's text are damaged ({str(error)[:80]})") from error


def window_to_png(window: Window) -> bytes:
    """Write the window of a rhythm verdict: the spectrogram of its last seconds, and what it rests on as text.

    Parameters
    ----------
    window : Window

    Returns
    -------
    bytes
        PNG of one grey pixel a column and bin; the wave of up to `reasons.BEFORE_S` before the verdict is in its text.
    """
    text = PngImagePlugin.PngInfo()
    start = int(window.signal.start[0])
    head = {"format": FORMAT, "kind": "window", "start": start, "samples": len(window.signal.x),
            "beats": len(window.peaks.r), "about": window.about}  # fmt: skip
    text.add_text(KEY, json.dumps(head))
    text.add_text(f"{KEY}-wave", _packed(window.signal.x), zip=False)
    text.add_text(f"{KEY}-flags", _packed(window.signal.flags), zip=False)
    beats = np.stack([window.peaks.r - start, window.peaks.decided - start, window.peaks.strength], axis=1)
    text.add_text(f"{KEY}-beats", _packed(beats), zip=False)
    out = io.BytesIO()
    Image.fromarray(window.drawn()).save(out, "PNG", pnginfo=text)
    return out.getvalue()


def read_window(data: bytes) -> Window | None:
    """Read the window of a rhythm verdict; None if the picture is none.

    Raises
    ------
    PictureError
        No picture, or its text is damaged.
    """
    with opened(data) as picture:
        info: dict[Any, Any] = dict(picture.info)
    head = _head(info) if KEY in info else {}
    if head.get("kind") != "window":
        return None
    try:
        start, size, beats = (int(head[name]) for name in ("start", "samples", "beats"))
        if not (0 < size <= LONGEST * FS and size % FS == 0 and start % FS == 0 and 0 <= beats <= size):
            raise ValueError(f"{size} samples from {start} on")
        x = _unpacked(info[f"{KEY}-wave"], (size,))
        flags = _unpacked(info[f"{KEY}-flags"], (size // BLOCK,)).astype(np.uint8)
        table = _unpacked(info[f"{KEY}-beats"], (beats, 3))
        r, decided = (table[:, k].astype(np.int64) for k in (0, 1))
        # A beat's shape is cut out of the last seconds: one from before or after the wave would be none.
        if not np.isfinite(x).all() or ((r < 0) | (r >= size) | (decided < r) | (decided > size)).any():
            raise ValueError("numbers out of range")
        signal = Signal(x, flags, np.array([0, size], np.int64), np.array([start], np.int64))
        end = np.array([start + size], np.int64)
        peaks = Peaks(np.array([0, beats], np.int64), r + start, decided + start, table[:, 2].copy(), end)
        return Window(signal, peaks, dict(head["about"]))
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise PictureError(f"the numbers in the image's text are damaged ({str(error)[:80]})") from error


def is_picture(name: str, data: bytes) -> bool:
    """Whether a file is to be read as a picture: by its first bytes or its name."""
    return (
        data[:4] == b"\x89PNG" or data[:3] == b"\xff\xd8\xff" or Path(name).suffix.lower() in (".png", ".jpg", ".jpeg")
    )
