"""State of a partition's patients as bytes, so that another worker can go on where this one was."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from alerts.limits import Limits
from alerts.rules import RuleState
from alerts.state import AlarmBook
from ingest.sequencer import Sequencer
from rhythmwatch.patient import Patient, PatientRecord, Vitals
from rhythmwatch.pipeline import Pipeline

VERSION: Final = 3


class CheckpointError(ValueError):
    """A checkpoint that can't be used here (another version, other networks, damaged): replay from further back."""


class _Checkpoint(msgspec.Struct, array_like=True):
    version: int
    layout: str
    patients: list[PatientRecord]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Checkpoint)
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
    patients = [_record(pipeline, patient) for patient in pipeline.of_partition(partition)]
    return _encoder.encode(_Checkpoint(VERSION, pipeline.stages.layout_hash, patients))


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
    patients = [_patient(pipeline, record) for record in checkpoint.patients]
    for patient in patients:
        pipeline.add(patient)
    return patients


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
