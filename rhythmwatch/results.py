"""What an evaluation gathers, record by record, before figures are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.training.scoring import Counts
from rhythmwatch.annotations import AlarmLine
from rhythmwatch.challenge import Judged
from rhythmwatch.episodes import Timeline
from rhythmwatch.scores import Scored


@dataclass(slots=True)
class Results:
    """Results of records.

    Attributes
    ----------
    beats : list of Scored
        mitdb.
    timelines : dict of str to Timeline
        By ``database/name``: mitdb and the test records of vfdb.
    noise : dict of str to Counts
        QRS complexes in the noisy parts of each record of nstdb.
    motion : tuple of AlarmLine or None
        Alarms of the hour of electrode motion; None where it was not run.
    challenge : list of Judged
        Test recordings of the AF challenge 2017.
    """

    beats: list[Scored] = field(default_factory=list)
    timelines: dict[str, Timeline] = field(default_factory=dict)
    noise: dict[str, Counts] = field(default_factory=dict)
    motion: tuple[AlarmLine, ...] | None = None
    challenge: list[Judged] = field(default_factory=list)

    def add(self, other: Results) -> None:
        """Take the results of other records in."""
        self.beats += other.beats
        self.timelines |= other.timelines
        self.noise |= other.noise
        self.motion = self.motion if other.motion is None else other.motion
        self.challenge += other.challenge

    def in_order(self) -> Results:
        """Sort by name: processes end in any order, a report does not depend on it."""
        return Results(
            sorted(self.beats, key=lambda item: item.name),
            dict(sorted(self.timelines.items())),
            dict(sorted(self.noise.items())),
            self.motion,
            sorted(self.challenge, key=lambda item: item.name),
        )

    def of_database(self, database: str) -> list[Timeline]:
        """Timelines of one database."""
        return [item for key, item in self.timelines.items() if key.startswith(f"{database}/")]
