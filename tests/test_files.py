"""Recordings in files of every kind that people have, and one clear line for those that are none."""

from __future__ import annotations

import json
from pathlib import Path

import edfio
import numpy as np
import pytest

from ingest import files
from ingest.recordings import RecordingError

MV = np.round(np.sin(np.arange(500) / 20), 3)


def test_edf_is_read_in_millivolts(tmp_path: Path) -> None:
    """An EDF in uV gives its samples back, within its resolution; signals that are no voltage stay out."""
    path = tmp_path / "a.edf"
    signals = [
        edfio.EdfSignal(np.arange(500.0) % 9, 250, label="Resp", physical_dimension="L"),
        edfio.EdfSignal(MV * 1000, 250, label="ECG II", physical_dimension="uV"),
    ]
    edfio.Edf(signals).write(path)
    read = files.read_file(path)
    assert (read.rate, read.leads) == (250.0, ("ECG II",))
    assert np.abs(read.samples[:, 0] / read.gain - MV).max() < 0.002


def test_csv_with_a_rate_line_or_a_time_column(tmp_path: Path) -> None:
    """Both ways to say the rate give the same samples; an empty cell is a missing sample."""
    body = "\n".join(f"{v}" for v in MV)
    (tmp_path / "a.csv").write_text("# rate = 250 Hz\nII\n" + body)
    (tmp_path / "b.csv").write_text("time,II\n" + "\n".join(f"{i / 250},{v}" for i, v in enumerate(MV)))
    (tmp_path / "c.csv").write_text("ms;II;V5\n" + "\n".join(f"{i * 4};{v};" for i, v in enumerate(MV)))
    a, b, c = (files.read_file(tmp_path / f"{name}.csv") for name in "abc")
    assert a.rate == b.rate == c.rate == 250.0
    assert np.array_equal(a.samples, b.samples)
    assert np.array_equal(a.samples[:, 0], c.samples[:, 0])
    assert (c.samples[:, 1] == np.iinfo(np.int32).min).all()
    assert np.allclose(a.samples[:, 0] / a.gain, MV, atol=5e-4)


def test_json_frames_and_a_gap_between_them(tmp_path: Path) -> None:
    """Frames one a line are joined by their sample numbers; what lies between them is missing."""
    frames = [
        {
            "rate": 250,
            "leads": ["II"],
            "gain": 200,
            "sample": first,
            "samples": {"II": [*(MV[first : first + 99] * 200), None]},
        }
        for first in (0, 150)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(frame) for frame in frames))
    read = files.read_file(tmp_path / "a.jsonl")
    assert read.samples.shape == (250, 1)
    assert (read.samples[100:150] == np.iinfo(np.int32).min).all()
    assert np.allclose(read.samples[150:249, 0] / read.gain, MV[150:249], atol=6e-4)
    assert read.samples[249, 0] == np.iinfo(np.int32).min


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xff\xfe\x00", "is no text"),
        ("a.csv", b"II\n1\n2\n", "says no sampling rate"),
        ("a.csv", b"# rate = 250\nII\n1\nx\n", "no number"),
        ("a.csv", b"# rate = 250\nII,V5\n1\n", "same number of columns"),
        ("a.csv", b"# rate = 9\nII\n1\n", "9 Hz"),
        ("a.csv", b"# rate = 250\nII\n", "one at least"),
        ("a.json", b"{]", "is no JSON"),
        ("a.json", b"[1]", "holds no frames"),
        ("a.json", b'{"rate": 250, "samples": []}', "holds no samples"),
        ("a.edf", b"0       but no edf", "is no EDF"),
        ("a.xyz", b"abc", "no recording that is known here"),
        ("a.hea", b"nonsense", "unreadable"),
    ],
)
def test_what_is_no_recording_says_so_in_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    """Each wrong file is refused with one line that names it."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=says) as caught:
        files.read_file(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are said before anything is read."""
    with pytest.raises(RecordingError, match="no file"):
        files.read_file(tmp_path / "none.csv")
    (tmp_path / "big.csv").write_text("# rate = 250\n1\n")
    monkeypatch.setattr(files, "LARGEST", 3)
    with pytest.raises(RecordingError, match="cut it into parts"):
        files.read_file(tmp_path / "big.csv")
