"""Coverage-guided fuzzing of all that bytes from outside reach: ``python benchmarks/fuzz_atheris.py --runs 2000000``.

Needs the extra ``fuzz`` (atheris, which is libFuzzer for Python). The targets of `fuzz_targets.py` run one after the
other, each in a process of its own that begins with valid messages and keeps whatever reaches new code. A finding is an
error that a decoder does not document, a decoder that takes longer than 20 s or more than 2 GiB, or a process that
dies; a run goes on after the first kind. Exit status 1 where there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, Final

import fuzz_targets

MOST_FINDINGS: Final = 20
"""Of one target, each from another place."""
MARK: Final = "FINDING "
LONGEST_S: Final = 20
MOST_MB: Final = 2048
MOST_BYTES: Final = 4096
MEMORY: Final = Path("/dev/shm")  # noqa: S108


def child(name: str, options: list[str]) -> None:
    """Be the process of one target: libFuzzer ends it."""
    import atheris
    import structlog

    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    make, _, packages = fuzz_targets.ALL[name]
    with atheris.instrument_imports(include=list(packages)):
        target = make()
    seen: set[tuple[str, str, int]] = set()

    def run(data: bytes) -> None:
        try:
            target.run(data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = (type(error).__name__, last.filename, last.lineno or 0)
            if place not in seen and len(seen) < MOST_FINDINGS:
                seen.add(place)
                told = {"target": name, "error": f"{place[0]}: {error}"[:300], "at": f"{place[1]}:{place[2]}"}
                sys.stderr.write(f"\n{MARK}{json.dumps({**told, 'input': data.hex()})}\n")
                sys.stderr.flush()

    atheris.Setup([sys.argv[0], *options], run)
    atheris.Fuzz()


def fuzz(name: str, runs: int, seconds: int, start: int, folder: Path) -> dict[str, Any]:
    """Run one target in a process and say what came of it."""
    corpus = folder / name
    corpus.mkdir()
    target = fuzz_targets.ALL[name][0]()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    target.close()
    limits = [f"-runs={runs}"] if runs else [f"-max_total_time={seconds}"]
    command = [
        sys.executable, sys.argv[0], "--child", name, *limits, f"-seed={start}", f"-timeout={LONGEST_S}",
        f"-rss_limit_mb={MOST_MB}", f"-max_len={MOST_BYTES}", f"-artifact_prefix={folder}/", "-print_final_stats=1",
        str(corpus),
    ]  # fmt: skip
    findings, done, rate, tail, began = [], 0, "", "", time.monotonic()
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(MARK):
                findings.append(json.loads(line.removeprefix(MARK)))
                print(f"  {findings[-1]['error']} at {findings[-1]['at']}", flush=True)
            elif counted := re.match(r"#(\d+)\s+(pulse|DONE).*?cov: (\d+)", line):
                done, rate = int(counted[1]), counted[3]
                print(f"\r{name}: {done:,} of {runs or f'{seconds} s'}", end="", flush=True, file=sys.stderr)
            elif "number_of_executed_units" in line:
                done = int(line.rpartition(":")[2])
            tail = line if "ERROR" in line else tail
    if process.returncode:
        dead = sorted(path for path in folder.iterdir() if path.is_file())
        found = {"target": name, "error": tail.strip() or f"the process ended with {process.returncode}", "at": ""}
        findings.append({**found, "input": dead[-1].read_bytes().hex() if dead else ""})
        for path in dead:
            path.unlink()
    took = time.monotonic() - began
    kept = len(list(corpus.iterdir()))
    print(
        f"\r{name}: {done:,} runs in {took:.0f} s, {len(findings)} findings, {kept} inputs that reach new code",
        flush=True,
    )
    return {"runs": done, "seconds": round(took, 1), "covered": rate, "corpus": kept, "findings": findings}


def main() -> None:
    """Parse options, run, print or write the figures."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="of all targets, shared by their weights")
    parser.add_argument("--minutes", type=float, default=0.0, help="instead of runs, shared in the same way")
    parser.add_argument("--targets", nargs="+", choices=fuzz_targets.ALL, default=list(fuzz_targets.ALL))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("fuzz_atheris: atheris is not installed: pip install --constraint requirements.lock -e '.[fuzz]'")
    shares = {name: fuzz_targets.ALL[name][1] for name in options.targets}
    whole, figures = sum(shares.values()), {}
    # In memory where that is possible: some decoders read files, and each run writes one.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        for name, share in shares.items():
            runs = 0 if options.minutes else max(1, round(options.runs * share / whole))
            seconds = max(1, round(options.minutes * 60 * share / whole))
            figures[name] = fuzz(name, runs, seconds, options.seed, Path(folder))
    found = sum(len(item["findings"]) for item in figures.values())
    print(f"{sum(item['runs'] for item in figures.values()):,} runs, {found} findings")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
