"""The fuzzers of `benchmarks/`, briefly: no payload stops a stage, and they find a fault that is there."""

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import BENCHMARKS, script

from ingest.files import read_file
from ingest.recordings import RecordingError
from rhythmwatch.unpacking import unpack


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """Payloads that ingest reads."""
    return script("fuzz_codecs")


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    """Every decoder that bytes from outside reach."""
    return script("fuzz_targets")


async def test_no_payload_stops_a_stage(fuzz: ModuleType):
    """Ten thousand altered payloads, and some drawn by hypothesis, end as taken or refused by name."""
    figures = await fuzz.run(10_000, 7, 0.01)
    assert figures["tried"] >= 10_000
    assert figures["first_stops"] == []
    assert figures["stopped"] == 0
    assert {"taken", "checksum", "length", "json", "note", "samples", "magic"} <= figures["outcomes"].keys()


def test_a_fault_is_found(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """A codec that raises something else is told with its payload."""
    monkeypatch.setitem(fuzz.CODECS, "status", (lambda data: data[7],))
    stage = fuzz.Stage()
    stage.feed("status", b"short")
    assert [(topic, bytes.fromhex(data)) for topic, data, _ in stage.stops] == [("status", b"short")]


@pytest.mark.parametrize("payload", [b'{"name":"\xff"}', b'{"leads":["\xff"],"rate":250,"gain":1}', b'"\xff"'])
def test_text_that_is_no_utf8_is_refused_by_name(fuzz: ModuleType, payload: bytes):
    """Bytes that are no text are a bad note, not an error of ours."""
    stage = fuzz.Stage()
    for topic in fuzz.TOPICS:
        stage.feed(topic, payload)
    assert stage.stops == []


NAMES = [
    "frames", "straps", "notes", "mqtt", "journal", "messages", "pages", "admissions", "resources", "uploads",
    "pictures", "fold",
]  # fmt: skip


def test_every_target_is_tried(targets: ModuleType):
    """The names below are those of the fuzzer."""
    assert set(NAMES) == targets.ALL.keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")  # of libraries that read damaged files, as where they are used
def test_decoders_say_by_name_what_they_refuse(
    targets: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Valid messages, and those with bytes altered, raise nothing that a decoder does not document."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target, rng = targets.ALL[name][0](), random.Random(3)
    for seed in target.seeds:
        target.run(seed)
        for _ in range(20):
            data = bytearray(seed)
            for _ in range(rng.randint(1, 3)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            target.run(bytes(data))
    target.close()


FOUND = {
    "text of the bus that is no UTF-8": ("messages", b"\x82\xa4type\xa6action\xa4name\xa3a\xc3k"),
    "an entry with such text": ("fold", b"\x00\x24\x02" + bytes(8) + b"\x01x\x82\xa4type\xa6action\xa4name\xa3a\xc3k"),
    "lists within lists from a page": ("pages", b'{"x":' + b"[" * 100_000),
    "lists within lists on the bus": ("messages", b"\x82\xa4type\xa6action\xa1x" + b"\x91" * 100_000),
    "a table of empty cells": ("uploads", b"\0# rate = 250\n,\n"),
    "a cell without end": ("uploads", b"\0# rate = 250\nMLII\n" + b"1" * 200_000),
    "a rate beyond reason": ("uploads", b'\1[{"rate":1e15,"samples":[1]},{"rate":1,"samples":[1],"sample":1e16}]'),
    "a number beyond any": ("uploads", b'\1[{"rate":250,"samples":[1],"sample":1e999}]'),
    "a list that should be an object": (
        "resources", b'{"resourceType":"Encounter","subject":{"reference":"Patient/1"},"serviceProvider":[1]}'
    ),
    "a number that should be a list": ("resources", b'{"resourceType":"Patient","name":[{"given":5}]}'),
    "a header without a trigger event": ("admissions", b"\x0bMSH|^~\\&|HIS|H|RW|W|2026||ADT|1|P|2.5\r\x1c\r"),
}  # fmt: skip


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_stays_mended(targets: ModuleType, what: str):
    """Inputs that once raised what nobody expected."""
    name, data = FOUND[what]
    target = targets.ALL[name][0]()
    target.run(data)
    target.close()


def test_small_files_do_not_fill_the_memory(tmp_path: Path):
    """Frames that say how much is missing between them are refused where that is more than can be."""
    frames = [{"rate": 2000, "samples": [1], "sample": 119_000 * number} for number in range(400)]
    path = tmp_path / "gaps.json"
    path.write_text(json.dumps(frames), encoding="utf-8")
    with pytest.raises(RecordingError, match="missing"):
        read_file(path)


def test_a_zip_with_a_file_without_a_name_is_refused(tmp_path: Path):
    """Its name leads nowhere."""
    with zipfile.ZipFile(tmp_path / "named.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("a"), b"")
        archive.infolist()[0].filename = ""
    with pytest.raises(ValueError, match="leads elsewhere"):
        unpack(tmp_path / "named.zip", tmp_path / "out")


def test_a_damaged_zip_is_one_line(tmp_path: Path):
    """Packed bytes that were altered anywhere are refused as a zip that is not whole, or unpacked."""
    packed = tmp_path / "images.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("normal/1.png", bytes(range(200)))
    whole, said = packed.read_bytes(), []
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 0xFF
        packed.write_bytes(data)
        try:
            unpack(packed, tmp_path / "out")
        except ValueError as error:
            said.append(error)
    assert len(said) > len(whole) / 2
    assert {type(error) for error in said} == {ValueError}
    assert not any("\n" in str(error) for error in said)


def test_the_guided_fuzzer_finds_a_fault(tmp_path: Path):
    """With the extra `fuzz`, a target that raises what it should not ends in a finding with its input."""
    if importlib.util.find_spec("atheris") is None:
        command = [sys.executable, BENCHMARKS / "fuzz_atheris.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "pip install" in done.stderr
        return
    out = tmp_path / "figures.json"
    faulty = (
        "import fuzz_targets, fuzz_atheris, sys\n"
        "def run(data): assert data[:1] != b'o' or len(data) < 3, 'fault'\n"
        "made = lambda: fuzz_targets.Target(run, [b'online'])\n"
        "fuzz_targets.ALL = {'notes': (made, 1, ('ingest',))}\n"
        "fuzz_atheris.main()\n"
    )
    script = tmp_path / "faulty.py"
    script.write_text(faulty, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, "--runs", "200", "--out", out],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (finding,) = json.loads(out.read_text("utf-8"))["notes"]["findings"]
    assert "fault" in finding["error"]
    assert bytes.fromhex(finding["input"])[:1] == b"o"
