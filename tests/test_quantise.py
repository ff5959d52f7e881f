"""What the wall gets of waveform and spectrogram."""

import numpy as np
import pytest

from rhythmwatch.quantise import LOUD_DB, QUIET_DB, loudness


@pytest.mark.parametrize("db", [QUIET_DB - 30, QUIET_DB, QUIET_DB / 2, LOUD_DB, LOUD_DB + 30])
def test_loudness_is_linear_in_db(db: float) -> None:
    """The level of a column is told to within a step of 255, and bounded at both ends."""
    spread = np.linspace(db - 5, db + 5, 1000)
    angle = np.linspace(0, 50, 1000)
    magnitude = 10 ** (spread / 20)
    found = loudness((magnitude * np.cos(angle)).astype(np.float32), (magnitude * np.sin(angle)).astype(np.float32))
    wanted = np.clip((spread - QUIET_DB) / (LOUD_DB - QUIET_DB) * 255, 0, 255)
    assert found.dtype == np.uint8
    assert np.all(np.abs(found - wanted) <= 1.15)


def test_silence_and_what_is_no_number_are_quiet() -> None:
    assert loudness(np.array([0.0, np.nan], np.float32), np.zeros(2, np.float32)).tolist() == [0, 0]
