"""Fuzz targets on files that people give: recordings, images, and zips of them."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from fuzzing import Target, valid_frames


def uploads() -> Target:
    """Aim at recordings that people give, by a first byte: CSV, JSON, EDF; WFDB with its header before a NUL."""
    import edfio
    import numpy as np

    from ingest.codecs import encode_json
    from ingest.files import read_file
    from ingest.recordings import RecordingError, read_record

    place = Path(tempfile.mkdtemp())
    names = ("file.csv", "file.json", "file.edf", "file.hea")

    def run(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        body, signal = data[1:], b""
        if name == "file.hea":
            body, _, signal = body.partition(b"\0\0")
            (place / "file.dat").write_bytes(signal)
        (place / name).write_bytes(body)
        try:
            read_record(place / "file") if name == "file.hea" else read_file(place / name)
        except RecordingError:
            return

    edf = io.BytesIO()
    edfio.Edf([edfio.EdfSignal(np.sin(np.arange(500) / 9), 250, label="ECG", physical_dimension="mV")]).write(edf)
    head = b"file 1 250 4\nfile.dat 16 200(0)/mV 16 0 0 0 0 MLII\n"
    return Target(run, [
        b"\0# rate = 250\nMLII,V5\n0.1,0.2\n0.3,\n", b"\0time;MLII\n0;1\n0.004;2\n",
        b"\1" + encode_json(valid_frames()[0]),
        b'\1[{"rate":250,"samples":[0.1,null],"sample":0},{"rate":250,"samples":[1,2],"sample":9}]',
        b"\2" + edf.getvalue(), b"\3" + head + b"\0\0" + b"\1\0\2\0\3\0\4\0",
    ])  # fmt: skip


def pictures() -> Target:
    """Aim at images that people give, those of our own with numbers in their text, and zips of them."""
    import numpy as np
    from PIL import Image

    from rhythmwatch.pictures import PictureError, is_picture, read_picture, read_window
    from rhythmwatch.unpacking import unpack

    neutral = np.zeros(64, np.float32)
    folder = Path(tempfile.mkdtemp())

    def run(data: bytes) -> None:
        is_picture("file.png", data)
        for reading in (lambda given: read_picture(given, neutral), read_window):
            try:
                reading(data)  # type: ignore[operator]
            except PictureError:
                continue
        if data[:2] == b"PK":
            (folder / "images.zip").write_bytes(data)
            try:
                unpack(folder / "images.zip", folder / "out")
            except ValueError as error:
                if type(error) is not ValueError:
                    raise

    seeds = []
    for kind in ("PNG", "JPEG"):
        drawn = io.BytesIO()
        Image.fromarray((np.arange(256) % 251).astype(np.uint8).reshape(16, 16)).save(drawn, kind)
        seeds.append(drawn.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("normal/1.png", seeds[0])
    return Target(run, [*seeds, packed.getvalue()])
