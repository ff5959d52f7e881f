"""Fetching recordings: resumed, checked, and every failure is one line; against a publisher that runs here."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rhythmwatch.data import DATABASES, DataError, fetch, parse_checksums, wanted


@dataclass
class Publisher:
    """What the publisher has, how it misbehaves, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    ranges: bool = True
    url: str = ""

    def put(self, database: str, files: dict[str, bytes], *, listed: dict[str, bytes] | None = None) -> None:
        """Publish files with their checksums; `listed` gives other contents for the checksums."""
        root = DATABASES[database].path
        sums = "".join(f"{hashlib.sha256(data).hexdigest()} {name}\n" for name, data in (listed or files).items())
        self.files |= {f"/{root}/{name}": data for name, data in files.items()}
        self.files[f"/{root}/SHA256SUMS.txt"] = sums.encode()

    def asked(self, name: str) -> list[str | None]:
        """Ranges with which a file was asked for."""
        return [ranged for path, ranged in self.requests if path.endswith(f"/{name}")]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            ranged = self.headers.get("Range")
            state.requests.append((self.path, ranged))
            data = state.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            first = int(ranged.removeprefix("bytes=").removesuffix("-")) if ranged and state.ranges else 0
            if first >= len(data) > 0 and ranged:
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            end = state.break_after.pop(self.path.rsplit("/", 1)[1], len(data))
            self.wfile.write(data[first:end])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def contents(names: list[str]) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    return {name: rng.bytes(50_000 + 1000 * i) for i, name in enumerate(names)}


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_a_database_comes_with_its_files_and_nothing_else(publisher: Publisher, tmp_path: Path):
    """Signals, headers and annotations of the top folder are fetched and equal; others are left; no rest stays."""
    files = contents(["100.dat", "100.hea", "100.atr", "RECORDS"])
    publisher.put("mitdb", files | {"index.html": b"no", "x_mitdb/x_108.dat": b"no"})
    folder = fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    assert folder == tmp_path / "mitdb"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_progress_is_shown_by_files(publisher: Publisher, tmp_path: Path):
    """The bar names the database and ends with all files."""
    publisher.put("svdb", contents(["800.dat", "800.hea"]))
    console = quiet()
    fetch("svdb", tmp_path, url=publisher.url, console=console)
    assert "fetch svdb" in console.file.getvalue()
    assert "2/2" in console.file.getvalue()


def test_what_is_there_and_whole_is_not_fetched_again(publisher: Publisher, tmp_path: Path):
    """A second run asks for the checksums alone; a file that was damaged meanwhile is fetched anew."""
    files = contents(["100.dat", "100.hea"])
    publisher.put("mitdb", files)
    folder = fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    publisher.requests.clear()
    (folder / "100.hea").write_bytes(b"damaged")
    fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    assert publisher.asked("100.dat") == []
    assert publisher.asked("100.hea") == [None]
    assert (folder / "100.hea").read_bytes() == files["100.hea"]


def test_a_file_that_broke_off_goes_on_where_it_stopped(publisher: Publisher, tmp_path: Path):
    """A broken connection is taken up with a range behind what came, within one run."""
    files = contents(["100.dat"])
    publisher.put("mitdb", files)
    publisher.break_after["100.dat"] = 20_000
    folder = fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    assert (folder / "100.dat").read_bytes() == files["100.dat"]
    assert publisher.asked("100.dat") == [None, "bytes=16384-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_run_that_was_ended_goes_on_in_the_next(publisher: Publisher, tmp_path: Path, ranges: bool):
    """The part left by an earlier run is kept; a publisher that knows no ranges sends the file whole."""
    files = contents(["100.dat"])
    publisher.put("mitdb", files)
    publisher.ranges = ranges
    (tmp_path / "mitdb").mkdir()
    (tmp_path / "mitdb" / ".100.dat.part").write_bytes(files["100.dat"][:12_345])
    folder = fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    assert (folder / "100.dat").read_bytes() == files["100.dat"]
    assert publisher.asked("100.dat") == ["bytes=12345-"]
    assert [path.name for path in folder.iterdir()] == ["100.dat"]


def test_a_part_that_is_already_whole_is_taken(publisher: Publisher, tmp_path: Path):
    """A run ended between the last byte and the check: nothing is fetched twice."""
    files = contents(["100.dat"])
    publisher.put("mitdb", files)
    (tmp_path / "mitdb").mkdir()
    (tmp_path / "mitdb" / ".100.dat.part").write_bytes(files["100.dat"])
    folder = fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    assert (folder / "100.dat").read_bytes() == files["100.dat"]


def test_a_wrong_checksum_is_an_error_and_the_file_is_gone(publisher: Publisher, tmp_path: Path):
    """A file that differs is thrown away, named in one line, and a sound copy comes with the next run."""
    files = contents(["100.dat", "100.hea"])
    publisher.put("mitdb", files | {"100.dat": b"tampered"}, listed=files)
    with pytest.raises(DataError, match=r"mitdb/100\.dat differs from the publisher's checksum") as caught:
        fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "mitdb").iterdir() if "100.dat" in path.name]
    publisher.put("mitdb", files)
    assert (fetch("mitdb", tmp_path, url=publisher.url, console=quiet()) / "100.dat").read_bytes() == files["100.dat"]


def test_no_network_says_what_to_do(tmp_path: Path):
    """A publisher that can't be reached is one line with the next step."""
    with pytest.raises(DataError, match=r"can't fetch mitdb from 127\.0\.0\.1:9 \(no connection\): check the network"):
        fetch("mitdb", tmp_path, url="http://127.0.0.1:9", console=quiet())


def test_a_connection_that_keeps_breaking_is_given_up_with_its_part_kept(publisher: Publisher, tmp_path: Path):
    """After three tries the line says that the next run goes on where this one stopped."""
    files = contents(["100.dat"])
    publisher.put("mitdb", files)

    class Always(dict[str, int]):
        def pop(self, key: str, default: int) -> int:  # type: ignore[override]
            return {"100.dat": 20_000}.get(key, default)

    publisher.break_after = Always()
    with pytest.raises(DataError, match=r"broke off\): .* goes on where it stopped"):
        fetch("mitdb", tmp_path, url=publisher.url, console=quiet())
    assert (tmp_path / "mitdb" / ".100.dat.part").read_bytes() == files["100.dat"][:16_384]


def test_a_refusal_and_a_strange_answer_are_told_apart(publisher: Publisher, tmp_path: Path):
    """A missing page names its status; a page without checksums asks for the address."""
    with pytest.raises(DataError, match="answers 404 to"):
        fetch("vfdb", tmp_path, url=publisher.url, console=quiet())
    publisher.files["/vfdb/1.0.0/SHA256SUMS.txt"] = b"<html>log in first</html>"
    with pytest.raises(DataError, match="lists none of the files of vfdb"):
        fetch("vfdb", tmp_path, url=publisher.url, console=quiet())
    with pytest.raises(DataError, match="unknown database 'ptb': there are mitdb, svdb"):
        fetch("ptb", tmp_path, url=publisher.url, console=quiet())


def test_the_challenge_is_unpacked_flat_with_its_third_labels(publisher: Publisher, tmp_path: Path):
    """The archive's records lie in one folder beside ``REFERENCE.csv``; nothing in it can leave that folder."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("training2017/A00001.hea", "training2017/A00001.mat", "../../escaped.hea", "training2017/README"):
            packed.writestr(name, name)
    publisher.put("cinc2017", {"training2017.zip": archive.getvalue(), "REFERENCE-v3.csv": b"A00001,N\n"})
    folder = fetch("challenge-2017", tmp_path / "data", url=publisher.url, console=quiet())
    assert folder == tmp_path / "data" / "cinc2017"
    assert (folder / "A00001.mat").read_text() == "training2017/A00001.mat"
    assert (folder / "REFERENCE.csv").read_text() == "A00001,N\n"
    assert not list(tmp_path.parent.glob("escaped*"))
    assert not (folder / "README").exists()


def test_checksums_are_read_in_both_layouts():
    """Text and binary marks are understood, other lines left; only wanted names of the top folder are chosen."""
    digest = "a" * 64
    text = f"{digest} 100.dat\n{digest} *100.hea\n{digest}  sub/101.dat\nno checksum\n{digest[:-1]} 102.dat\n"
    sums = parse_checksums(text)
    assert set(sums) == {"100.dat", "100.hea", "sub/101.dat"}
    assert set(wanted(sums, DATABASES["mitdb"])) == {"100.dat", "100.hea"}
