"""ECG paper in true millimetres, drawn the same on a PDF page and in a picture.

Coordinates are mm from the upper left corner, y downward.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import reportlab
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

Colour: TypeAlias = tuple[int, int, int]

SPEED: Final = 25.0
"""mm a second."""
HEIGHT: Final = 10.0
"""mm a millivolt."""
INK: Final[Colour] = (20, 20, 24)
FAINT: Final[Colour] = (96, 96, 104)
FINE: Final[Colour] = (250, 218, 218)
COARSE: Final[Colour] = (240, 170, 170)
GAP: Final[Colour] = (236, 236, 240)
CLASS_COLOURS: Final[dict[str, Colour]] = {
    **dict.fromkeys("VEF", (178, 60, 0)),
    **dict.fromkeys("AaJS", (118, 40, 160)),
    **dict.fromkeys("/Q", (0, 90, 120)),
}
FONTS: Final = {"Vera": "Vera.ttf", "VeraBd": "VeraBd.ttf"}
PX: Final = 8
"""Pixels a mm of pictures: 203 dots an inch."""
_FOLDER: Final = Path(reportlab.__file__).parent / "fonts"


class Pen(Protocol):
    """What can draw."""

    def lines(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        """Draw a connected line, `width` in mm."""
        ...

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle."""
        ...

    def text(
        self, x: float, y: float, text: str, size: float, colour: Colour = INK, *, bold: bool = False, align: str = "l"
    ) -> None:
        """Write a line whose base is at `y`; `size` in mm, `align` l, m or r."""
        ...


class PdfPen:
    """A pen on the page of a PDF.

    Parameters
    ----------
    canvas : Canvas
    height : float
        Of the page, mm.
    """

    def __init__(self, canvas: Canvas, height: float) -> None:
        self.canvas = canvas
        self._height = height
        for name, file in FONTS.items():
            if name not in pdfmetrics.getRegisteredFontNames():
                pdfmetrics.registerFont(TTFont(name, str(_FOLDER / file)))

    def lines(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        """Draw a connected line."""
        path = self.canvas.beginPath()
        path.moveTo(points[0][0] * mm, (self._height - points[0][1]) * mm)
        for x, y in points[1:]:
            path.lineTo(x * mm, (self._height - y) * mm)
        self.canvas.setLineWidth(width * mm)
        self.canvas.setLineJoin(1)
        self.canvas.setStrokeColorRGB(*(part / 255 for part in colour))
        self.canvas.drawPath(path)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.canvas.setFillColorRGB(*(part / 255 for part in colour))
        self.canvas.rect(x * mm, (self._height - y - height) * mm, width * mm, height * mm, stroke=0, fill=1)

    def text(
        self, x: float, y: float, text: str, size: float, colour: Colour = INK, *, bold: bool = False, align: str = "l"
    ) -> None:
        """Write a line."""
        self.canvas.setFillColorRGB(*(part / 255 for part in colour))
        self.canvas.setFont("VeraBd" if bold else "Vera", size * mm)
        place = (x * mm, (self._height - y) * mm)
        if align == "r":
            self.canvas.drawRightString(*place, text)
        elif align == "m":
            self.canvas.drawCentredString(*place, text)
        else:
            self.canvas.drawString(*place, text)

    def picture(self, x: float, y: float, width: float, height: float, pixels: NDArray[np.uint8]) -> None:
        """Draw an RGB picture of shape (rows, columns, 3), stretched."""
        from reportlab.lib.utils import ImageReader

        reader: Any = ImageReader(Image.fromarray(pixels))
        self.canvas.drawImage(reader, x * mm, (self._height - y - height) * mm, width * mm, height * mm)


class PicturePen:
    """A pen on a picture of `PX` pixels a mm."""

    def __init__(self, width: float, height: float) -> None:
        self.image = Image.new("RGB", (round(width * PX), round(height * PX)), (255, 255, 255))
        self._draw = ImageDraw.Draw(self.image)
        self._fonts: dict[tuple[bool, float], Any] = {}

    def lines(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        """Draw a connected line."""
        scaled = [(x * PX, y * PX) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * PX)), joint="curve")

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self._draw.rectangle((x * PX, y * PX, (x + width) * PX, (y + height) * PX), fill=colour)

    def text(
        self, x: float, y: float, text: str, size: float, colour: Colour = INK, *, bold: bool = False, align: str = "l"
    ) -> None:
        """Write a line."""
        key = (bold, size)
        if key not in self._fonts:
            file = _FOLDER / FONTS["VeraBd" if bold else "Vera"]
            self._fonts[key] = ImageFont.truetype(str(file), round(size * PX))
        self._draw.text((x * PX, y * PX), text, fill=colour, font=self._fonts[key], anchor=f"{align}s")

    def png(self) -> bytes:
        """Give the picture, with its scale."""
        out = io.BytesIO()
        self.image.save(out, "PNG", dpi=(PX * 25.4, PX * 25.4), optimize=False)
        return out.getvalue()


def draw_grid(pen: Pen, x: float, y: float, width: float, height: float) -> None:
    """Draw lines of 1 mm, and of 5 mm over them."""
    for step, thick, colour in ((1.0, 0.08, FINE), (5.0, 0.14, COARSE)):
        for number in range(int(width / step) + 1):
            pen.lines(((x + number * step, y), (x + number * step, y + height)), thick, colour)
        for number in range(int(height / step) + 1):
            pen.lines(((x, y + number * step), (x + width, y + number * step)), thick, colour)


def draw_trace(
    pen: Pen, x: float, y: float, height: float, mv: NDArray[Any], fs: float, *, speed: float = SPEED
) -> None:
    """Draw samples of one lead; missing ones leave the paper grey, and what is off the paper is cut at its edge.

    Parameters
    ----------
    x, y, height : float
        Upper left corner and height of the paper.
    mv : ndarray, shape (n,)
        Millivolts, NaN where there is no sample. The middle of their range is the middle of the paper.
    fs : float
        Hz.
    """
    there = ~np.isnan(mv)
    middle = float(np.percentile(mv[there], (0.2, 99.8)).mean()) if there.any() else 0.0
    rise = np.clip((mv - middle) * HEIGHT, -height / 2, height / 2)
    edges = np.flatnonzero(np.diff(there.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    end = 0
    for begin, stop in [*edges.tolist(), (len(mv), len(mv))]:
        if begin > end:
            pen.box(x + end / fs * speed, y, (begin - end) / fs * speed, height, GAP)
        end = stop
    for begin, stop in edges.tolist():
        places = np.arange(begin, stop) / fs * speed + x
        heights = y + height / 2 - rise[begin:stop]
        points = list(zip(places.tolist(), heights.tolist(), strict=True))
        pen.lines(points if len(points) > 1 else [points[0], points[0]], 0.25, INK)


def draw_beats(pen: Pen, x: float, y: float, beats: Sequence[tuple[float, str]], *, speed: float = SPEED) -> None:
    """Write the class over each beat, with a tick; ``(seconds, code)``."""
    for seconds, code in beats:
        colour = CLASS_COLOURS.get(code, FAINT)
        pen.lines(((x + seconds * speed, y + 0.6), (x + seconds * speed, y + 2.2)), 0.2, colour)
        pen.text(x + seconds * speed, y, code, 2.4, colour, bold=code not in ("N", "L", "R"), align="m")
