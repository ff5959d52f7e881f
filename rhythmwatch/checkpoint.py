"""State of a partition's patients as bytes, so that another worker can go on where this one was."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Final

import msgspec

from alerts import state
from alerts.book import AlarmBook
from alerts.limits import Limits, LimitsError, limits_from, of_profile, values_of
from alerts.rules import RuleState
from ingest.sequencer import Sequencer
from rhythmwatch.patient import Patient, PatientRecord, Vitals, new_patient
from rhythmwatch.pipeline import Pipeline

VERSION: Final = 5


class CheckpointError(ValueError):
    """A checkpoint that can't be used here (another version, other networks, damaged): replay from further back."""


class _Checkpoint(msgspec.Struct, array_like=True):
    version: int
    layout: str
    patients: bytes
    lasting: bytes


class _Lasting(msgspec.Struct):
    """What staff set and what stands, by names, so that it outlives new networks and versions."""

    id: str
    profile: str
    values: dict[str, float | bool]
    off: list[str]
    vacant: bool
    book: AlarmBook


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Checkpoint)
_patients = msgspec.msgpack.Decoder(list[PatientRecord])
_lasting = msgspec.msgpack.Decoder(list[_Lasting])
_rules = msgspec.msgpack.Decoder(RuleState | None)
_book = msgspec.msgpack.Decoder(AlarmBook)
_limits = msgspec.msgpack.Decoder(Limits)


def dump(pipeline: Pipeline, partition: int) -> bytes:
    """Copy the state of a partition's patients.

    Parameters
    ----------
    pipeline : Pipeline
        Between two calls of `Pipeline.step`.
    partition : int
        Whose patients.

    Returns
    -------
    bytes
        For `restore`.
    """
    mine = pipeline.of_partition(partition)
    patients = _encoder.encode([_record(pipeline, patient) for patient in mine])
    lasting = _encoder.encode([_lasts(patient) for patient in mine])
    return _encoder.encode(_Checkpoint(VERSION, pipeline.stages.layout_hash, patients, lasting))


def restore(pipeline: Pipeline, data: bytes) -> list[Patient]:
    """Put patients back into a pipeline that does not hold them yet.

    Raises
    ------
    CheckpointError
        If the state is of another version or layout, or damaged; the pipeline is unchanged then.
    """
    try:
        checkpoint = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise CheckpointError(f"checkpoint can't be read: {error}") from error
    layout = pipeline.stages.layout_hash
    if checkpoint.version != VERSION or checkpoint.layout != layout:
        raise CheckpointError(
            f"checkpoint of version {checkpoint.version}, layout {checkpoint.layout}; {VERSION}, {layout} is spoken"
        )
    try:
        records = _patients.decode(checkpoint.patients)
    except msgspec.DecodeError as error:
        raise CheckpointError(f"checkpoint can't be read: {error}") from error
    patients = [_patient(pipeline, record) for record in records]
    for patient in patients:
        pipeline.add(patient)
    return patients


def salvage(pipeline: Pipeline, data: bytes) -> list[Patient]:
    """Take over what must not be lost from a checkpoint that `restore` refused: limits, profiles, alarms.

    What stood can't be judged by what comes, so it ends as if its condition had ended: a lethal alarm that nobody
    acknowledged stays latched.

    Parameters
    ----------
    pipeline : Pipeline
        That does not hold these patients yet.
    data : bytes
        Of `dump`, of another version or other networks.

    Returns
    -------
    list of Patient
        Empty where nothing can be read.
    """
    try:
        lasting = _lasting.decode(_decoder.decode(data).lasting)
    except msgspec.DecodeError:
        return []
    patients = []
    for item in lasting:
        patient = new_patient(item.id)
        for one in (patient, patient.late):
            if one is not None:
                # A limit that has become invalid is that of the profile again.
                with contextlib.suppress(LimitsError):
                    one.limits = of_profile(item.profile)
                    one.profile = item.profile
                    one.limits = limits_from(item.values, item.off)
        patient.vacant, patient.book = item.vacant, item.book
        patient.told_pause_ms = item.book.pause_until_ms
        state.on_restart(patient.book, item.book.now_ms)
        pipeline.add(patient)
        patients.append(patient)
    return patients


def _lasts(patient: Patient) -> _Lasting:
    off = sorted(patient.limits.off)
    return _Lasting(patient.id, patient.profile, values_of(patient.limits), [*off], patient.vacant, patient.book)


def _record(pipeline: Pipeline, patient: Patient) -> PatientRecord:
    return PatientRecord(
        id=patient.id,
        device=patient.device,
        epoch=patient.epoch,
        rate=patient.rate,
        leads=patient.leads,
        seen=patient.seen,
        next_sample=patient.next_sample,
        skip_to=patient.skip_to,
        last_frame_ms=patient.last_frame_ms,
        silent=patient.silent,
        battery=patient.battery,
        now_ms=patient.now_ms,
        clock=patient.clock,
        sequencer=patient.sequencer.to_bytes(),
        rules=_encoder.encode(patient.rules),
        book=_encoder.encode(patient.book),
        limits=_encoder.encode(patient.limits),
        recent=list(patient.vitals.recent),
        ectopic=list(patient.vitals.ectopic),
        rhythm=patient.vitals.rhythm,
        quality=patient.vitals.quality,
        lead=patient.vitals.lead,
        records=pipeline.stages.dump(patient.slot) if patient.slot >= 0 else {},
        profile=patient.profile,
        vacant=patient.vacant,
        told_pause_ms=patient.told_pause_ms,
        timeline=patient.timeline,
        channel=patient.channel,
        queued_origin_ms=patient.queued_origin_ms,
        queued_ms=patient.queued_ms,
        broken=patient.broken,
        late=_record(pipeline, patient.late) if patient.late is not None else None,
    )


def _patient(pipeline: Pipeline, record: PatientRecord) -> Patient:
    vitals = Vitals(rhythm=record.rhythm, quality=record.quality, lead=record.lead)
    vitals.recent.extend(record.recent)
    vitals.ectopic = deque(record.ectopic)
    try:
        patient = Patient(
            id=record.id,
            device=record.device,
            epoch=record.epoch,
            rate=record.rate,
            leads=record.leads,
            queued_rate=record.rate,
            queued_leads=len(record.leads),
            seen=record.seen,
            next_sample=record.next_sample,
            skip_to=record.skip_to,
            last_frame_ms=record.last_frame_ms,
            silent=record.silent,
            battery=record.battery,
            now_ms=record.now_ms,
            clock=record.clock,
            sequencer=Sequencer.from_bytes(record.sequencer),
            rules=_rules.decode(record.rules),
            book=_book.decode(record.book),
            limits=_limits.decode(record.limits),
            profile=record.profile,
            vacant=record.vacant,
            told_pause_ms=record.told_pause_ms,
            timeline=record.timeline,
            channel=record.channel,
            queued_origin_ms=record.queued_origin_ms,
            queued_ms=record.queued_ms,
            broken=record.broken,
            late=_patient(pipeline, record.late) if record.late is not None else None,
            vitals=vitals,
        )
        if record.records:
            patient.slot = pipeline.stages.admit()
            pipeline.stages.load(patient.slot, record.records)
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise CheckpointError(f"state of a patient can't be read: {error}") from error
    return patient
