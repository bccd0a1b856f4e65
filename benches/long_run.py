#!/usr/bin/env python3
"""Memory and time of a long run: what `vitx explain` holds after 500 pictures and after all of them.

    python3 benches/long_run.py [--vitx PATH] [--pictures N] [-- ARGUMENTS OF EXPLAIN]

Makes N pictures, explains them, and prints the resident memory as the ledger grows; then resumes the finished run. Standard
library only; memory is read from /proc.
"""

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def png(path: Path, seed: int) -> None:
    """A picture of 64 x 48 pixels, another for every seed."""
    row = lambda y: bytes((x * (3 + seed % 5) + y * (1 + seed % 7) + seed * c) % 256 for x in range(64) for c in (1, 2, 3))
    rows = b"".join(b"\0" + row(y) for y in range(48))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def memory(pid: int, kind: str) -> float:
    """MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+)", status)[1]) / 1024


def watched(command: list, folder: Path, marks: list) -> dict:
    """Resident memory in MiB by what was done; seconds and the peak under their names."""
    start, seen, lines, at = time.monotonic(), {}, 0, 0
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    ledger, peak = folder / "out/.vitx-records.jsonl", 0.0
    while child.poll() is None:
        time.sleep(0.02)
        try:
            peak = max(peak, memory(child.pid, "VmHWM"))
            now = memory(child.pid, "VmRSS")
        except (OSError, TypeError):
            continue  # it has just ended
        if ledger.exists():
            with ledger.open("rb") as file:
                file.seek(at)
                more = file.read()
            at, lines = at + len(more), lines + more.count(b"\n")
            for mark in marks:
                if lines >= mark:
                    seen.setdefault(mark, now)
    assert child.returncode == 0, f"exit code {child.returncode}"
    return {**seen, "seconds": time.monotonic() - start, "peak": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vitx", default=str(ROOT / "target/release/vitx"))
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("more", nargs="*", help="further arguments of explain")
    args = parser.parse_args()
    vitx, count = str(Path(args.vitx).resolve()), args.pictures
    marks = sorted({mark for mark in (100, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000) if mark < count} | {count - 50})
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        (folder / "in").mkdir()
        for number in range(count):
            png(folder / "in" / f"{number:06}.png", number)
        command = [vitx, "explain", "in", "-q", "-f", "npy", "-o", "out", "--table", "t.jsonl", *args.more]
        run = watched(command, folder, marks)
        for mark in marks:
            print(f"{mark:7} pictures: {run[mark]:6.1f} MiB")
        print(f"whole run: {run['seconds']:.1f} s, peak {run['peak']:.1f} MiB; {(run[marks[-1]] / run[500] - 1) * 100:+.1f} % since 500 pictures")
        again = watched([*command, "--resume"], folder, [])
        print(f"resumed with nothing to do: {again['seconds']:.1f} s, peak {again['peak']:.1f} MiB")
        shutil.rmtree(folder / "out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
