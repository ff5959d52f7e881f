"""SQL tables of the recordings: the index of the segments on disk, the trends of each minute, the recorder's place."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from alerts.tables import Base


class SegmentRow(Base):
    """A segment on disk: samples of one epoch of one device, about an hour (see `alerts.archive_files`)."""

    __tablename__ = "segments"
    __table_args__ = (Index(None, "patient", "to_ms"), Index(None, "to_ms"))

    path: Mapped[str] = mapped_column(String(400), primary_key=True)
    """Below the folder of recordings, without an ending."""
    patient: Mapped[str] = mapped_column(String(255))
    device: Mapped[str] = mapped_column(String(255))
    epoch: Mapped[int] = mapped_column(BigInteger)
    first: Mapped[int] = mapped_column(BigInteger)
    """Index in the epoch of its first sample."""
    length: Mapped[int] = mapped_column(BigInteger)
    """Samples that it can hold."""
    from_ms: Mapped[int] = mapped_column(BigInteger)
    to_ms: Mapped[int] = mapped_column(BigInteger)
    fs: Mapped[float] = mapped_column(Float)
    gain: Mapped[float] = mapped_column(Float)
    leads: Mapped[str] = mapped_column(Text)
    """JSON list."""
    bits: Mapped[int] = mapped_column(Integer)
    anchors: Mapped[str] = mapped_column(Text)
    """JSON list of [sample, ms]: wall time of samples, straight at `fs` from each to the next."""


class MinuteRow(Base):
    """What a minute held, as sums, so that late parts can be added."""

    __tablename__ = "minutes"
    __table_args__ = (Index(None, "ms"),)

    patient: Mapped[str] = mapped_column(String(255), primary_key=True)
    ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    beats: Mapped[int] = mapped_column(Integer)
    rr_count: Mapped[int] = mapped_column(Integer)
    rr_ms: Mapped[int] = mapped_column(BigInteger)
    hr_min: Mapped[float | None] = mapped_column(Float)
    hr_max: Mapped[float | None] = mapped_column(Float)
    pvc: Mapped[int] = mapped_column(Integer)
    sveb: Mapped[int] = mapped_column(Integer)
    af_ms: Mapped[int] = mapped_column(BigInteger)
    good_ms: Mapped[int] = mapped_column(BigInteger)
    """Time with a signal that is not noisy."""
    signal_ms: Mapped[int] = mapped_column(BigInteger)
    """Time with a signal that was analysed."""


class RecorderRow(Base):
    """Positions up to which a partition's entries and events are on disk, and what the recorder must know to go on."""

    __tablename__ = "recorders"

    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    entries: Mapped[str] = mapped_column(String(64))
    events: Mapped[str] = mapped_column(String(64))
    state: Mapped[bytes] = mapped_column(LargeBinary)
