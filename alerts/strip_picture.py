"""A strip as a picture on ECG paper: rows of ten seconds, one band of paper a lead."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from numpy.typing import NDArray

from alerts.archive import Strip
from alerts.paper import FAINT, HEIGHT, SPEED, PicturePen, draw_beats, draw_grid, draw_trace

ROW_S: Final = 10.0
BAND: Final = 30.0
"""mm of paper a lead."""
EDGE: Final = 8.0
HEAD: Final = 14.0
NOTE: Final = "Not a medical device: not for diagnosis or treatment."


def strip_png(strip: Strip, beats: NDArray[Any], title: str) -> bytes:
    """Draw a strip.

    Parameters
    ----------
    strip : Strip
        Not empty.
    beats : ndarray of TIMED_BEAT
    title : str
        First line of the picture.
    """
    seconds = len(strip.units) / strip.fs
    rows = max(1, -int(-seconds // ROW_S))
    width = min(seconds, ROW_S) * SPEED
    row_height = len(strip.leads) * BAND + 12.0
    pen = PicturePen(max(width, 120.0) + 2 * EDGE, HEAD + rows * row_height + 8.0)
    pen.text(EDGE, 7.0, title, 3.6, bold=True)
    pen.text(EDGE, 12.0, f"{SPEED:g} mm/s   {HEIGHT:g} mm/mV   {NOTE}", 2.8, FAINT)
    mv = strip.mv
    step = round(ROW_S * strip.fs)
    for row in range(rows):
        part = mv[row * step : (row + 1) * step]
        top = HEAD + row * row_height + 7.0
        begin_ms = strip.ms(row * step)
        when = datetime.fromtimestamp(begin_ms / 1000, UTC)
        pen.text(EDGE, top - 3.4, f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 100_000} UTC", 2.8, FAINT)
        for column, lead in enumerate(strip.leads):
            y = top + column * BAND
            draw_grid(pen, EDGE, y, width, BAND)
            draw_trace(pen, EDGE, y, BAND, part[:, column], strip.fs)
            pen.text(EDGE + 1.0, y + BAND - 1.5, lead, 3.2, bold=True)
        marks = [((ms - begin_ms) / 1000, code.decode()) for ms, code in zip(beats["ms"], beats["code"], strict=True)]
        draw_beats(pen, EDGE, top - 0.2, [mark for mark in marks if 0 <= mark[0] < len(part) / strip.fs])
    return pen.png()
