"""Pages of a report: A4 across, title, footer with the intended use on every page, times in the ward's zone."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final

from reportlab.lib.units import mm
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

from alerts.paper import COARSE, FAINT, INK, PdfPen

WIDTH: Final = 297.0
HEIGHT: Final = 210.0
LEFT: Final = 23.5
"""Edge that leaves 250 mm, ten seconds of paper."""
RIGHT: Final = WIDTH - LEFT
TOP: Final = 12.0
BOTTOM: Final = HEIGHT - 14.0
USE: Final = (
    "RhythmWatch is not a medical device. Automatic findings, not confirmed by a physician: "
    "not for diagnosis or treatment."
)


class Page:
    """The page at hand, and those before it.

    Attributes
    ----------
    pen : PdfPen
    y : float
        Where free space begins, mm from the top.
    """

    def __init__(self, canvas: Canvas, title: str, subject: str, made: str, total: int) -> None:
        self.canvas = canvas
        self.pen = PdfPen(canvas, HEIGHT)
        self.number = 0
        self.y = TOP
        self._title, self._subject, self._made, self._total = title, subject, made, total
        self.next()

    def next(self) -> None:
        """Begin a page."""
        if self.number:
            self.canvas.showPage()
        self.number += 1
        pen = self.pen
        pen.text(LEFT, TOP + 2.0, self._title, 5.0, bold=True)
        pen.text(RIGHT, TOP + 2.0, self._subject, 3.6, align="r")
        pen.lines(((LEFT, TOP + 4.5), (RIGHT, TOP + 4.5)), 0.3, INK)
        pen.text(LEFT, HEIGHT - 8.0, USE, 2.6, FAINT)
        of = f" of {self._total}" if self._total else ""
        pen.text(RIGHT, HEIGHT - 8.0, f"{self._made}   page {self.number}{of}", 2.6, FAINT, align="r")
        self.y = TOP + 8.0

    def need(self, height: float) -> None:
        """Go to the next page unless so much fits on this one."""
        if self.y + height > BOTTOM:
            self.next()

    def heading(self, text: str) -> None:
        """Write a heading."""
        self.need(14.0)
        self.pen.text(LEFT, self.y + 3.6, text, 3.8, bold=True)
        self.y += 6.5

    def facts(self, rows: Sequence[tuple[str, str]], x: float, y: float, width: float, *, label: float = 30.0) -> float:
        """Write labelled values under each other, long ones over several lines; returns where they end."""
        for name, value in rows:
            self.pen.text(x, y + 2.8, name, 2.8, FAINT)
            for line in wrapped(value, 3.0, width - label):
                self.pen.text(x + label, y + 2.8, line, 3.0)
                y += 4.3
        return y

    def table(self, x: float, heads: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[float]) -> None:
        """Write a table; what is too long for its cell is cut with an ellipsis."""

        def line(cells: Sequence[str], *, bold: bool) -> None:
            place = x
            for cell, width in zip(cells, widths, strict=True):
                lines = wrapped(cell, 2.9, width - 2.0)
                text = lines[0] if len(lines) < 2 else f"{lines[0]} ..."
                self.pen.text(place, self.y + 2.8, text, 2.9, FAINT if bold else INK, bold=bold)
                place += width
            self.y += 4.5

        line(heads, bold=True)
        self.pen.lines(((x, self.y - 0.4), (x + sum(widths), self.y - 0.4)), 0.15, COARSE)
        for row in rows:
            self.need(5.0)
            line(row, bold=False)


def render(title: str, subject: str, made: str, draw: Callable[[Page], None]) -> bytes:
    """Make a PDF.

    Parameters
    ----------
    title, subject : str
        At the top of each page.
    made : str
        In the footer: when and by whom.
    draw : callable
        Draws all pages; called twice, so that each page knows how many there are.
    """
    total = 0
    data = b""
    for _ in range(2):
        out = io.BytesIO()
        canvas = Canvas(out, pagesize=(WIDTH * mm, HEIGHT * mm), pageCompression=1, invariant=1, lang="en")
        canvas.setTitle(f"{title} - {subject}" if subject else title)
        canvas.setAuthor("RhythmWatch")
        canvas.setSubject(USE)
        page = Page(canvas, title, subject, made, total)
        draw(page)
        canvas.save()
        total, data = page.number, out.getvalue()
    return data


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Break a text into lines of at most `width` mm; a word that is longer is cut."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if _wide(longer, size) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while _wide(word, size) > width and len(word) > 1:
                cut = max(1, int(len(word) * width / _wide(word, size)))
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    return lines


def _wide(text: str, size: float) -> float:
    return stringWidth(text, "Vera", size * mm) / mm


def clock(ms: int, zone: tzinfo | None, *, day: bool = True, tenths: bool = False) -> str:
    """Write a time for people, in a zone; None is that of this machine."""
    when = datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)
    text = f"{when:%Y-%m-%d %H:%M:%S}" if day else f"{when:%H:%M:%S}"
    return f"{text}.{when.microsecond // 100_000}" if tenths else text


def zone_name(ms: int, zone: tzinfo | None) -> str:
    """Name a zone as it is called at a time."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).tzname() or ""


def span(ms: float) -> str:
    """Write a duration for people."""
    seconds = round(ms / 1000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"
