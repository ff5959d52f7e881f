"""What `fuzz_atheris.py` aims at: every decoder that bytes from outside reach, with valid messages to begin from.

A target takes any bytes and lets nothing but the error types through that its decoder documents; those it takes itself,
so that whatever it raises is a finding. Modules of ours are imported when a target is made, so that they can be
instrumented before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import fuzz_bus
import fuzz_devices
import fuzz_files
import fuzz_hospital
from fuzzing import Target

ALL: Final[dict[str, tuple[Callable[[], Target], float, tuple[str, ...]]]] = {
    "frames": (fuzz_devices.frames, 6, ("ingest",)),
    "straps": (fuzz_devices.straps, 1.5, ("ingest",)),
    "notes": (fuzz_devices.notes, 3, ("ingest",)),
    "mqtt": (fuzz_devices.mqtt, 1, ("ingest", "bus")),
    "journal": (fuzz_devices.journal, 3, ("ingest",)),
    "messages": (fuzz_bus.messages, 4, ("bus", "ingest", "web")),
    "pages": (fuzz_bus.pages, 2, ("web",)),
    "admissions": (fuzz_hospital.admissions, 0.4, ("rhythmwatch.adt_message", "hl7")),
    "resources": (fuzz_hospital.resources, 3, ("alerts.fhir",)),
    "uploads": (fuzz_files.uploads, 0.15, ("ingest", "edfio")),
    "pictures": (fuzz_files.pictures, 0.1, ("rhythmwatch.pictures", "rhythmwatch.unpacking")),
    "fold": (fuzz_bus.fold, 0.02, ("bus", "ingest", "alerts", "rhythmwatch")),
}
"""By name: what makes the target, its share of the runs, and the packages whose coverage leads it."""
