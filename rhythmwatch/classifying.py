"""Files that staff give the page, classified in a process of their own, so that nothing live waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from web.parts import FileRefusedError, Parts
from web.production import open_parts
from web.settings import WebSettings

LONGEST_S: Final = 120.0
"""A file that takes longer is given up."""


class FileClassifier:
    """Runs ``rhythmwatch classify`` for one file at a time, at low priority."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def classify(self, name: str, data: bytes) -> bytes:
        """Classify a file.

        Parameters
        ----------
        name : str
            Its name; the suffix alone is used.
        data : bytes

        Returns
        -------
        bytes
            JSON of `rhythmwatch.classify`.

        Raises
        ------
        FileRefusedError
            What is wrong with the file, for people.
        """
        suffix = "".join(c for c in Path(name).suffix[:8] if c.isalnum() or c == ".")
        if suffix.lower() in (".hea", ".dat"):
            raise FileRefusedError("A WFDB record is two files. Give EDF, CSV or JSON, or use `rhythmwatch classify`.")
        async with self._turn:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"file{suffix}"
                await asyncio.to_thread(path.write_bytes, data)
                return await self._run(path)

    async def _run(self, path: Path) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rhythmwatch", "classify", str(path), "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 10)
        try:
            async with asyncio.timeout(LONGEST_S):
                out, said = await process.communicate()
        except TimeoutError as error:
            raise FileRefusedError(f"Not done after {LONGEST_S:.0f} s. Give a shorter recording.") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = [line for line in said.decode(errors="replace").splitlines() if line.startswith("rhythmwatch: ")]
            raise FileRefusedError(lines[-1].removeprefix("rhythmwatch: ") if lines else "The file can't be read.")
        return out


@contextlib.asynccontextmanager
async def open_all_parts(settings: WebSettings) -> AsyncIterator[Parts]:
    """Open the parts of the pages, with the classifier of files among them."""
    async with open_parts(settings) as parts:
        yield dataclasses.replace(parts, classifier=FileClassifier())
