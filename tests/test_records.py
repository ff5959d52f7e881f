"""Recordings are read as published, and the splits are what they claim."""

from __future__ import annotations

import csv
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
import wfdb

from inference.training.records import CLASS_OF, CLASSES, GROUP_OF_CLASS, challenge_labels, names, read, read_challenge
from inference.training.scoring import GROUPS
from inference.training.splits import DS1, DS2, PACED, VFDB_TEST, challenge_test, training_hash


def write(folder: Path, name: str) -> Path:
    """Write a small two-lead record with annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    signal = np.stack([np.linspace(-1, 1, 500), np.linspace(2, 0, 500)], axis=1)
    wfdb.wrsamp(
        name,
        fs=250,
        units=["mV", "uV"],
        sig_name=["V1", "MLII"],
        p_signal=signal,
        fmt=["16", "16"],
        write_dir=str(folder),
    )
    wfdb.wrann(
        name,
        "atr",
        np.array([10, 20, 100, 150, 200, 300, 400]),
        symbol=["+", "N", "V", "[", "!", "]", "j"],
        aux_note=["(N", "", "", "", "", "", ""],
        write_dir=str(folder),
    )
    return folder


def test_a_record_is_read_in_mv_with_its_beats_rhythms_and_flutter(tmp_path):
    """Units are converted, beats split from other marks, and the analysed lead is MLII."""
    write(tmp_path / "db", "r1")
    record = read(tmp_path, "db", "r1")
    assert record.leads == ("V1", "MLII")
    assert record.lead() == 1
    assert record.lead("V1") == 0
    assert record.mv.dtype == np.float32
    assert record.mv[-1, 0] == pytest.approx(1.0, abs=1e-3)
    assert record.mv[0, 1] == pytest.approx(0.002, abs=1e-5)
    assert record.beats.tolist() == [20, 100, 400]
    assert record.classes.tolist() == [0, 4, 0]
    assert record.groups.tolist() == [0, 2, 0]
    assert record.rhythm_codes == ("(N",)
    assert record.excluded == ((150 / 250, 300 / 250),)
    assert record.beat_times.tolist() == [0.08, 0.4, 1.6]
    assert names(tmp_path, "db") == ["r1"]


def test_what_is_not_there_is_said(tmp_path):
    """A missing record, database, archive or lead is named with what to do."""
    write(tmp_path / "db", "r1")
    with pytest.raises(FileNotFoundError, match="data fetch db"):
        read(tmp_path, "db", "r2")
    with pytest.raises(FileNotFoundError, match="data fetch other"):
        names(tmp_path, "other")
    with pytest.raises(FileNotFoundError, match="data fetch cinc2017"):
        next(read_challenge(tmp_path / "cinc2017.tar"))
    with pytest.raises(KeyError, match="no lead V9"):
        read(tmp_path, "db", "r1").lead("V9")


def test_the_challenge_is_read_from_its_tar(tmp_path):
    """Names, labels and samples come out of the archive without unpacking it."""
    folder = write(tmp_path / "cinc2017", "A00001")
    write(folder, "A00002")
    with (folder / "REFERENCE.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["A00001", "N"], ["A00002", "~"]])
    with tarfile.open(tmp_path / "cinc2017.tar", "w") as tar:
        tar.add(folder, "cinc2017")
    archive = tmp_path / "cinc2017.tar"
    assert challenge_labels(archive) == {"A00001": "N", "A00002": "~"}
    (record,) = read_challenge(archive, ["A00002"])
    assert (record.name, record.label, record.mv.shape) == ("A00002", "~", (500, 2))
    assert {record.name for record in read_challenge(archive)} == {"A00001", "A00002"}


def test_classes_and_groups_fit_together():
    """Every code has a class, every class a group, and each class's own code maps to it."""
    assert len(CLASSES) == len(GROUP_OF_CLASS) == 8
    assert all(CLASS_OF[code] == i for i, code in enumerate(CLASSES))
    assert [GROUPS[GROUP_OF_CLASS[CLASS_OF[code]]] for code in "NLRAVF/QejaSEf"] == list("NNNSVFQQNNSSVQ")


def test_the_splits_part_the_database():
    """DS1, DS2 and the paced records share none and make up the 48."""
    assert len(DS1) == len(DS2) == 22
    assert len({*DS1, *DS2, *PACED}) == 48
    assert VFDB_TEST == ("420", "423", "426", "429", "605", "610", "614")


def test_the_challenge_is_split_by_the_hash_of_the_name():
    """A fifth of the names test, by the published rule."""
    made = [f"A{i:05d}" for i in range(2000)]
    for name in made[:50]:
        expected = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 in (0, 1)
        assert challenge_test(name) is expected
    assert 0.17 < np.mean([challenge_test(name) for name in made]) < 0.23


def test_the_hash_names_a_set():
    """Order and repetition do not matter, membership does."""
    assert training_hash(["a/1", "b/2"]) == training_hash(["b/2", "a/1", "a/1"])
    assert training_hash(["a/1", "b/2"]) != training_hash(["a/1"])
    assert len(training_hash([])) == 64


@pytest.mark.data
def test_published_records_are_read(data_dir):
    """Record 207 has its length, beats and six flutter episodes; the splits name records that exist."""
    record = read(data_dir, "mitdb", "207")
    assert record.mv.shape == (650000, 2)
    assert record.beats.size == 1860
    assert len(record.flutter) == 6
    assert set(names(data_dir, "mitdb")) == {*DS1, *DS2, *PACED}
    assert record.rhythm_codes[0].startswith("(")
