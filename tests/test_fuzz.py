"""The fuzzer of `benchmarks/fuzz_codecs.py`, briefly: no payload stops a stage, and it finds a fault that is there."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "fuzz_codecs.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """Load the script."""
    spec = importlib.util.spec_from_file_location("fuzz_codecs", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_codecs"] = module
    spec.loader.exec_module(module)
    return module


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
