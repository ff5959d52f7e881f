"""What staff do to a patient through its stream, as a step of the fold: alarms, limits, profile, admission.

| action | values | what it does |
|---|---|---|
| ``ack`` | | acknowledges the alarm it names, or all |
| ``pause``, ``resume`` | ``seconds`` | begins or ends the audio pause |
| ``limits`` | limits and kinds by name | changes limits, switches kinds off (false) or on (true) |
| ``profile`` | ``profile`` | all limits of the profile, all kinds on |
| ``admit`` | ``profile`` | a new patient: what was learnt, limits and alarms begin anew |
| ``discharge`` | | the patient leaves: the same, with the limits of the profile in force |

Nothing here needs more than the state of the patient, so that a replay of the same entries gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alerts import rules, state
from alerts.book import AlarmChange
from alerts.limits import LimitsError, changed, of_profile
from bus.messages import Action
from rhythmwatch.patient import Patient

ALARM_ACTIONS: Final = ("ack", "pause", "resume")


@dataclass(frozen=True, slots=True)
class Acted:
    """What an action did.

    Attributes
    ----------
    changes : list of AlarmChange
        In order.
    reason : str
        Reason of the `SettingsEvent` that must follow; empty where nothing but alarms changed.
    note : str
        One sentence for the person who acted.
    refused : str
        Reason to be counted under; empty if it was done.
    anew : bool
        The signal stages and rules must begin anew.
    """

    changes: list[AlarmChange]
    reason: str = ""
    note: str = ""
    refused: str = ""
    anew: bool = False


def act(patient: Patient, action: Action, now_ms: int) -> Acted:
    """Do what an action asks for.

    Parameters
    ----------
    patient : Patient
        Changed in place.
    action : Action
        See the table of the module.
    now_ms : int
        Server time of the entry.

    Returns
    -------
    Acted
        What can't be done has no effect, is counted (but for an acknowledgement that came second), and says why.
    """
    try:
        if action.name == "limits":
            return _limits(patient, action, now_ms)
        if action.name == "profile":
            return _profile(patient, action, now_ms)
        if action.name in ("admit", "discharge"):
            return _turn_over(patient, action, now_ms)
    except LimitsError as error:
        return Acted(state.on_clock(patient.book, now_ms), "refused", str(error), "limits")
    before = patient.book.pause_until_ms
    outcome = state.on_action(patient.book, action.name, action.user, action.alarm, action.values, now_ms)
    if not outcome.accepted and action.name == "ack":
        # Somebody was faster, or the alarm ended meanwhile: no news for anybody, and nothing is wrong.
        return Acted(outcome.changes, note=outcome.message)
    if not outcome.accepted:
        return Acted(outcome.changes, "refused", outcome.message, "action")
    told = action.name if patient.book.pause_until_ms != before else ""
    return Acted(outcome.changes, told, outcome.message)


def _limits(patient: Patient, action: Action, now_ms: int) -> Acted:
    patient.limits = changed(patient.limits, action.values)
    return Acted(_switch_off(patient, action.user, now_ms), "limits", "limits changed")


def _profile(patient: Patient, action: Action, now_ms: int) -> Acted:
    _take_profile(patient, action.values)
    return Acted(_switch_off(patient, action.user, now_ms), "profile", f"limits of the profile {patient.profile}")


def _turn_over(patient: Patient, action: Action, now_ms: int) -> Acted:
    _take_profile(patient, action.values)
    changes = state.on_discharge(patient.book, action.user, now_ms)
    patient.vacant = action.name == "discharge"
    # Silence counts again from the first frame of the next patient.
    patient.last_frame_ms = 0
    patient.silent = False
    said = "patient discharged" if patient.vacant else "patient admitted"
    return Acted(changes, action.name, f"{said}, limits of the profile {patient.profile}", anew=True)


def _take_profile(patient: Patient, values: Mapping[str, float | str | bool]) -> None:
    name = values.get("profile", patient.profile)
    patient.limits = of_profile(name)
    patient.profile = str(name)


def _switch_off(patient: Patient, user: str, now_ms: int) -> list[AlarmChange]:
    off = patient.limits.off
    if patient.rules is not None:
        rules.switch_off(patient.rules, off)
    return state.on_switched_off(patient.book, off, user, now_ms)
