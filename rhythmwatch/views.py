"""Stretches of a patient as the wall gets them: waveform, spectrogram columns, vitals, small and lossy."""

from __future__ import annotations

from typing import Final

from bus.messages import View
from dsp.layout import FS
from dsp.spectrogram import BINS, HOP, POINTS
from rhythmwatch.patient import Patient
from rhythmwatch.stages import Stretch

TOP_HZ: Final = BINS * FS / POINTS


def view_of(patient: Patient, stretch: Stretch) -> View:
    """Make the view of a stretch that the patient's state has just taken in."""
    vitals = patient.vitals
    return View(
        patient=patient.id,
        device=patient.device,
        epoch=patient.epoch,
        ms=patient.ms(stretch.start),
        index=stretch.start,
        rate=FS,
        lead=vitals.lead,
        wave=stretch.wave,
        columns=stretch.loud,
        column0=stretch.column0,
        column_hop=HOP,
        bins=BINS,
        top_hz=TOP_HZ,
        hr=round(vitals.rate(), 1),
        hr_ms=patient.ms(vitals.recent[-1][0]) if vitals.recent else 0,
        rhythm=vitals.rhythm,
        pvc_min=vitals.pvc_a_minute(patient.seen),
        quality="no_data" if patient.silent else vitals.quality,
    )
