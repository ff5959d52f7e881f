"""Recordings come in exactly as the file holds them, and a bad one is one clear line."""

from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from ingest.recordings import RecordingError, data_folder, find_record, list_records, read_record


def write(
    folder: Path,
    name: str,
    signal: NDArray[np.int64],
    *,
    fmt: str = "16",
    gain: tuple[float, ...] = (200.0, 200.0),
    baseline: tuple[int, ...] = (0, 0),
    leads: tuple[str, ...] = ("V5", "MLII"),
    units: tuple[str, ...] = ("mV", "mV"),
) -> Path:
    """Write a record with `wfdb` and say where it is."""
    n = signal.shape[1]
    wfdb.wrsamp(
        name,
        fs=250,
        units=list(units[:n]),
        sig_name=list(leads[:n]),
        d_signal=signal,
        fmt=[fmt] * n,
        adc_gain=list(gain[:n]),
        baseline=list(baseline[:n]),
        write_dir=str(folder),
    )
    return folder / name


def ramp(rows: int = 500, columns: int = 2) -> NDArray[np.int64]:
    return np.arange(rows * columns, dtype=np.int64).reshape(rows, columns) % 400


@pytest.mark.parametrize("fmt", ["16", "212", "24", "516"])
def test_every_format_gives_the_stored_numbers_less_their_baseline(tmp_path: Path, fmt: str):
    """Values, rate and gain are those of the file, MLII first whatever its place."""
    x = ramp()
    recording = read_record(write(tmp_path, "a", x, fmt=fmt, baseline=(10, 20)))
    assert (recording.name, recording.rate, recording.gain, recording.leads) == ("a", 250.0, 200.0, ("MLII", "V5"))
    np.testing.assert_array_equal(recording.samples, np.stack([x[:, 1] - 20, x[:, 0] - 10], axis=1))
    assert recording.samples.dtype == np.int16
    assert recording.seconds == 2.0


def test_a_sample_that_is_not_valid_stays_marked(tmp_path: Path):
    """The format's own mark becomes the frame's mark, also where a baseline is taken off."""
    x = ramp(columns=1)
    x[100:120] = -(2**15)
    recording = read_record(write(tmp_path, "a", x, baseline=(7,)))
    assert np.flatnonzero(recording.samples[:, 0] == -(2**15)).tolist() == list(range(100, 120))


def test_leads_with_different_gains_get_the_finest(tmp_path: Path):
    """One mV is one mV on both leads, in units of the larger gain, and microvolts are understood."""
    x = np.full((300, 2), 100, dtype=np.int64)
    recording = read_record(write(tmp_path, "a", x, gain=(100.0, 0.4), units=("mV", "uV"), leads=("I", "II")))
    assert recording.gain == pytest.approx(400.0)
    assert recording.samples[0].tolist() == [400, 100]


def test_wide_values_are_kept_as_int32(tmp_path: Path):
    """Nothing of a 24-bit converter is cut off."""
    x = np.full((300, 1), 5_000_000, dtype=np.int64)
    recording = read_record(write(tmp_path, "a", x, fmt="24"))
    assert recording.samples.dtype == np.int32
    assert recording.samples[0, 0] == 5_000_000


def test_leads_are_chosen_by_name(tmp_path: Path):
    """A named lead comes alone; one that is not there is refused with those that are."""
    path = write(tmp_path, "a", ramp())
    assert read_record(path, ["V5"]).leads == ("V5",)
    with pytest.raises(RecordingError, match="no lead 'V1'; it has MLII, V5"):
        read_record(path, ["V1"])


def test_a_channel_without_volts_is_left_out(tmp_path: Path):
    """A pressure beside the ECG is no lead; a record without any lead is refused."""
    assert read_record(write(tmp_path, "a", ramp(), units=("mmHg", "mV"))).leads == ("MLII",)
    with pytest.raises(RecordingError, match="no lead in volts"):
        read_record(write(tmp_path, "b", ramp(), units=("mmHg", "bpm")))


@pytest.mark.parametrize("fmt", ["16", "212", "516"])
def test_a_truncated_signal_is_refused(tmp_path: Path, fmt: str):
    """Half a signal file is an error in words, not half a record."""
    path = write(tmp_path, "a", np.random.default_rng(1).integers(-200, 200, (5000, 2)), fmt=fmt)
    dat = path.with_suffix(".dat")
    dat.write_bytes(dat.read_bytes()[: dat.stat().st_size // 2])
    with pytest.raises(RecordingError, match="truncated"):
        read_record(path)


def test_missing_empty_and_unreadable_records_are_refused(tmp_path: Path):
    """Each cause has its own sentence of one line."""
    with pytest.raises(RecordingError, match="record x not found: no file"):
        read_record(tmp_path / "x")
    path = write(tmp_path, "a", ramp())
    path.with_suffix(".dat").write_bytes(b"")
    with pytest.raises(RecordingError, match="is empty"):
        read_record(path)
    path.with_suffix(".dat").unlink()
    with pytest.raises(RecordingError, match=r"a\.dat is missing"):
        read_record(path)
    for text in ("", "\x00\xff nonsense", "a two 250 500\n", "a 2 250 500\na.dat 16\n"):
        path.with_suffix(".hea").write_text(text)
        with pytest.raises(RecordingError) as caught:
            read_record(path)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "header", ["a 1 nan 500\na.dat 16 200/mV\n", "a 1 250 500\na.dat 16 nan/mV\n", "a 1 9 500\na.dat 16\n"]
)
def test_a_header_without_usable_numbers_is_refused(tmp_path: Path, header: str):
    """A rate or gain of nan, or a rate that no ECG has, is an error in one line."""
    write(tmp_path, "a", ramp(columns=1))
    (tmp_path / "a.hea").write_text(header)
    with pytest.raises(RecordingError) as caught:
        read_record(tmp_path / "a")
    assert len(str(caught.value).splitlines()) == 1


def test_records_are_found_by_path_name_and_subfolder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A bare name is looked for in the databases below the folder; two of them need a choice."""
    for database, name in (("mitdb", "100"), ("mitdb", "200"), ("svdb", "200")):
        (tmp_path / database).mkdir(exist_ok=True)
        write(tmp_path / database, name, ramp())
    assert find_record("100", tmp_path) == tmp_path / "mitdb" / "100"
    assert find_record("svdb/200", tmp_path) == tmp_path / "svdb" / "200"
    assert find_record(str(tmp_path / "mitdb" / "200.hea")) == tmp_path / "mitdb" / "200"
    assert [path.name for path in list_records(tmp_path)] == ["100", "200", "200"]
    with pytest.raises(RecordingError, match="ambiguous: say which of mitdb/200, svdb/200"):
        find_record("200", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_record("mitdb/100") == Path("mitdb/100")


def test_the_data_folder_is_the_named_one_then_the_variable_then_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder that was named and is not there is an error; nobody named one: data/ or nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RHYTHMWATCH_DATA", raising=False)
    assert data_folder() is None
    (tmp_path / "data").mkdir()
    assert data_folder() == Path("data")
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("RHYTHMWATCH_DATA", str(tmp_path / "other"))
    assert data_folder() == tmp_path / "other"
    assert data_folder(tmp_path / "data") == tmp_path / "data"
    with pytest.raises(RecordingError, match="--data names"):
        data_folder(tmp_path / "nowhere")
    monkeypatch.setenv("RHYTHMWATCH_DATA", "/nowhere/at/all")
    with pytest.raises(RecordingError, match="RHYTHMWATCH_DATA names"):
        data_folder()


@pytest.mark.data
def test_a_real_record_has_its_size_and_first_values(data_dir: Path):
    """Record 114 has its leads the other way round; 100 starts at its known values."""
    recording = read_record(find_record("mitdb/100", data_dir))
    assert recording.samples.shape == (650_000, 2)
    assert recording.samples[0].tolist() == [-29, -13]
    assert read_record(find_record("mitdb/114", data_dir)).leads == ("MLII", "V5")
