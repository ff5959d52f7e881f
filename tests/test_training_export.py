"""Exports for training: only with consent, without a sign of the person, gone at an erasure; and a demo's people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import wfdb
from sqlalchemy import insert
from test_rights import DEVICE, NAME, SECONDS, house_in, now_ms, stay_after, stay_of
from typer.testing import CliRunner

from alerts.care import Care, new_person
from alerts.care_model import Consent
from alerts.care_rows import reached
from alerts.database import open_engine
from ingest.simulator_cast import cast_names
from rhythmwatch.cli import app
from rhythmwatch.demo_people import admit_played, played_devices
from rhythmwatch.rights import erase


@pytest.mark.services
async def test_training_gets_what_people_agreed_to_under_numbers(tmp_path: Path) -> None:
    """One agreed and one did not: samples, beats and verdicts of the one, nothing of the other, no name or date."""
    async with house_in(tmp_path / "site") as house:
        willing, units = await stay_of(house, NAME, 1, 5)
        other, unwilling = await stay_after(house, willing)
        house.care.consent(Consent(willing, "training", True, NAME, "x", now_ms()))
        judgements = reached()["judgements"][0]
        with house.engine.begin() as connection:
            row = {"alarm": f"{DEVICE}/VTACH/5/1", "patient": DEVICE, "ms": now_ms(), "who": "Dr Who"}
            connection.execute(insert(judgements), row | {"verdict": "artefact", "comment": f"{NAME} moved"})
        out = tmp_path / "out"
        done = CliRunner().invoke(
            app,
            ["export-training", "--out", str(out), "--history", house.url, "--recordings", str(house.archive.folder)],
        )
        assert done.exit_code == 0, done.output
        assert "1 subjects, 1 records" in done.output
        (subject,) = out.iterdir()
        (header,) = subject.glob("*.hea")
        record = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
        assert np.array_equal(record.d_signal[: len(units)], units)
        assert record.base_date.year == 2000
        assert len(wfdb.rdann(str(header.with_suffix("")), "atr").sample) == SECONDS
        (judged,) = json.loads((subject / "judgements.json").read_text())
        assert (judged["kind"], judged["verdict"]) == ("VTACH", "artefact")
        everything = b"".join(path.read_bytes() + path.name.encode() for path in subject.iterdir())
        start = house.care.stays(person=willing)[0].from_ms
        for sign in (NAME, "Zw", "mrn-1", willing, other, DEVICE, "Dr Who", "moved", str(start // 100_000)):
            assert sign.encode() not in everything, sign
        assert unwilling[:6].tobytes() not in everything
        erasure = house.stores.erasures.ask(willing, "the admin", now_ms())
        assert await erase(house.stores, erasure) == ""
        assert list(out.iterdir()) == []


def test_a_withdrawn_consent_exports_nothing(tmp_path: Path) -> None:
    """Yes and then no is no; no folder is left behind."""
    url = f"sqlite:///{tmp_path}/h.db"
    admit_played(url, ["vf"])
    engine = open_engine(url)
    care = Care(engine)
    (person,) = care.persons()
    for given in (True, False):
        care.consent(Consent(person.person, "training", given, "x", "x", now_ms()))
    done = CliRunner().invoke(
        app,
        ["export-training", "--out", str(tmp_path / "out"), "--history", url, "--recordings", str(tmp_path / "rec")],
    )
    assert "0 subjects, 0 records" in done.output
    assert "1 persons left out" in " ".join(done.output.split())
    assert list((tmp_path / "out").iterdir()) == []
    engine.dispose()


def test_a_demo_has_people_who_agreed_to_monitoring_alone(tmp_path: Path) -> None:
    """Each device of the source gets a person once, whom a second start brings back, and never another."""
    url = f"sqlite:///{tmp_path}/h.db"
    devices = played_devices(("simulate", "--patients", "30", "--speed", "1"))
    assert devices == cast_names(30)
    assert len(set(devices)) == 30
    devices = devices[:5]
    admit_played(url, devices)
    admit_played(url, devices)
    engine = open_engine(url)
    care = Care(engine)
    stays = care.open_stays()
    assert sorted(stay.patient for stay in stays) == sorted(devices)
    assert {care.purposes(stay.person) for stay in stays} == {("monitoring",)}
    assert care.may_keep(devices[0], now_ms() + 1)
    assert care.turnovers(devices, 2**62) == []
    care.discharge(devices[0], "x", now_ms() + 2)
    admit_played(url, devices)
    assert {(stay.patient, stay.person) for stay in care.open_stays()} == {
        (stay.patient, stay.person) for stay in stays
    }
    assert [turnover.act for turnover in care.turnovers(devices, 2**62)] == ["discharge", "admit"]
    engine.dispose()


def test_a_smaller_demo_leaves_no_silent_beds(tmp_path: Path) -> None:
    """Whom it does not play is let go, and told so, until a larger one does; whom staff put in a bed stays there."""
    url = f"sqlite:///{tmp_path}/h.db"
    devices = cast_names(4)
    admit_played(url, devices)
    engine = open_engine(url)
    care = Care(engine)
    for patient in (devices[2], "real-1"):
        if care.open_stay(patient=patient):
            care.discharge(patient, "nurse", now_ms() + 1)
        care.admit(new_person(f"Real {patient}", now_ms()), patient, "9", "Ward", "adult", "nurse", now_ms() + 2)
    care.transfer(devices[1], "10", "Ward", "real-2", "nurse", now_ms() + 3)
    before = care.turnovers([], 2**62)
    admit_played(url, devices[:1])
    assert {stay.patient for stay in care.open_stays()} == {devices[0], devices[2], "real-1", "real-2"}
    (told,) = care.turnovers([], 2**62)[len(before) :]
    assert (told.channel, told.act) == (devices[3], "discharge")
    admit_played(url, devices)
    assert {stay.patient for stay in care.open_stays()} == {devices[0], devices[2], devices[3], "real-1", "real-2"}
    assert len(care.persons()) == 6
    engine.dispose()


def test_a_replay_names_its_devices_as_the_player_does(tmp_path: Path) -> None:
    """Folder and record, numbered where one record plays twice; no source has no devices."""
    record = str(tmp_path / "mitdb" / "200")
    source = ("replay", record, record, "--loop", "--speed", "1")
    assert played_devices(source) == ["mitdb-200", "mitdb-200-2"]
    assert played_devices(()) == []
