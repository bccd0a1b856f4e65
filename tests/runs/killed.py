#!/usr/bin/env python3
"""Kills `vitx` wherever it changes the disk, fills the disk, and looks whether a resumed run is a whole one.

    python3 tests/runs/killed.py [--vitx PATH] [--every N]

- Killed (as kill -9 does) at every call that changes the disk: no file under its final name is half written, and the run that
  goes on with --resume ends with the files of one that was never interrupted, byte for byte: results, records, tables, arrays,
  pages; of the ledger all but the time that each result took. No temporary file stays. `strace` finds the calls and kills.
- A disk that is full: an error that says so, whole files, and with room again --resume ends with the same files.
- A disk that is read-only: an error that names the folder.

Standard library only. What needs `strace`, or the right to mount a small disk, is left out with a word where there is none.
"""

import argparse
import collections
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/fixtures/vit-square/model"
CALLS = "write,writev,pwrite64,rename,renameat,renameat2,link,linkat,unlink,unlinkat,ftruncate,flock,mkdir,mkdirat,chmod,fchmod,fchmodat"
RUNS = {
    "arrays, overlays, records and a table of lines": ["explain", "in", "-o", "out", "-f", "npy,overlay,json", "--table", "t.jsonl"],
    "two methods, a table of commas": ["explain", "in", "-o", "out", "-f", "npy", "--method", "gae,rollout", "--table", "t.csv"],
    "pages and their index": ["explain", "in", "-o", "out", "-f", "html", "--table", "t.parquet"],
    "one array of all maps": ["explain", "in", "-o", "out", "-f", "npy", "--arrays", "maps.npy", "--table", "t.npz"],
    "one scale": ["explain", "in", "-o", "out", "-f", "overlay", "--normalize", "shared"],
}


def png(path: Path, seed: int) -> None:
    """A small picture."""
    rows = b"".join(b"\0" + bytes((x * 9 * (1 + seed % 3) + y * 7 * seed) % 256 for x in range(24) for _ in "rgb") for y in range(20))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 24, 20, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pictures(folder: Path, count: int) -> None:
    (folder / "in").mkdir(parents=True)
    for number in range(count):
        png(folder / "in" / f"{number:02}.png", number)


def tree(folder: Path) -> dict:
    """Every file that a run makes, by name; of ledgers the lines without the time they took."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(("in/", "log")):
            data = path.read_bytes()
            found[name] = re.sub(rb'"ms":[0-9.]+,?', b"", data) if path.name.startswith(".vitx-records") else data
    return found


def run(vitx: str, folder: Path, args: list, before: tuple = ()) -> subprocess.CompletedProcess:
    return subprocess.run([*before, vitx, *args, "-m", MODEL, "-q", "--threads", "1"], cwd=folder, capture_output=True, text=True)


def whole(name: str, data: bytes, wanted: dict) -> bool:
    """Whether a file is as it ends, or one that grows: whole rows, whole maps, or what is made of them in the end."""
    last = Path(name).name
    if last.startswith(".vitx-records") or name.endswith((".rows.jsonl", ".tmp")):
        return True
    if name in ("t.jsonl", "t.csv"):
        return wanted[name].startswith(data)
    if name == "maps.npy":
        return data[128:] == wanted[name][128 : len(data)]
    return wanted.get(name) == data


def killed(vitx: str, every: int, base: Path) -> int:
    tried = 0
    for title, args in RUNS.items():
        model = base / "model"
        model.mkdir()
        pictures(model, 3)
        done = run(vitx, model, args, ("strace", "-f", "-qq", "-o", "log", "-e", f"trace={CALLS}"))
        assert done.returncode == 0, done.stderr
        wanted = tree(model)
        made = collections.Counter(re.findall(r"^(\d+) +(\w+)\(", (model / "log").read_text(), re.MULTILINE))
        most = {}  # of each call, by the thread that makes it most often: strace counts so
        for (_, call), count in made.items():
            most[call] = max(count, most.get(call, 0))
        places = [(call, number) for call, count in sorted(most.items()) for number in range(1, count + 1)]
        for call, number in places[::every]:
            folder = base / "killed"
            pictures(folder, 3)
            inject = f"inject={call}:signal=KILL:when={number}"
            ended = run(vitx, folder, args, ("strace", "-f", "-qq", "-o", "log", "-e", f"trace={CALLS}", "-e", inject))
            assert ended.returncode in (-9, 137), f"{call} {number}: it was not killed ({ended.returncode})"
            (folder / "log").unlink()
            for name, data in tree(folder).items():
                assert whole(name, data, wanted), f"{title}: {name} is half written after {call} {number}"
            resumed = run(vitx, folder, [*args, "--resume"])
            assert resumed.returncode == 0, f"{title}, {call} {number}: {resumed.stderr}"
            now = tree(folder)
            differing = sorted(name for name in now.keys() | wanted.keys() if now.get(name) != wanted.get(name))
            assert not differing, f"{title}: resumed after {call} {number}, {differing} are not as in a whole run"
            shutil.rmtree(folder)
            tried += 1
        print(f"killed at {len(places[::every])} of {len(places)} calls that change the disk: {title}", flush=True)
        shutil.rmtree(model)
    return tried


def full(vitx: str, base: Path) -> bool:
    """On a disk of its own; whether one could be mounted."""
    disk = base / "disk"
    disk.mkdir()
    mount = lambda *how: subprocess.run(["mount", *how, disk], capture_output=True).returncode == 0
    if not mount("-t", "tmpfs", "-o", "size=256k", "tmpfs"):
        print("left out: a full disk (no right to mount a small one)")
        return False
    try:
        args = RUNS["arrays, overlays, records and a table of lines"][:-2]
        other = base / "other"
        pictures(other, 60)
        assert run(vitx, other, args).returncode == 0
        wanted = tree(other)
        (disk / "in").symlink_to(other / "in")
        ended = run(vitx, disk, args)
        there = tree(disk)
        assert ended.returncode == 1 and "No space left" in ended.stderr, ended.stderr
        assert ended.stderr.count("error:") == 1, f"one error for the disk, not one an input: {ended.stderr}"
        results = {name: data for name, data in there.items() if not Path(name).name.startswith(".")}
        assert 10 < len(results) < len(wanted) and all(wanted[name] == data for name, data in results.items())
        assert not [name for name in there if name.endswith(".tmp")]
        print(f"a full disk: {len(results)} of {len(wanted) - 1} files, all whole; {ended.stderr.strip()}")
        assert mount("-o", "remount,ro")
        ended = run(vitx, disk, [*args, "--resume"])
        assert ended.returncode == 2 and "out" in ended.stderr and "Read-only" in ended.stderr, ended.stderr
        print(f"a read-only disk: {ended.stderr.strip()}")
        assert mount("-o", "remount,rw,size=16m")
        assert run(vitx, disk, [*args, "--resume"]).returncode == 0
        assert tree(disk) == wanted, "with room again"
        return True
    finally:
        subprocess.run(["umount", disk])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vitx", default=str(ROOT / "target/release/vitx"))
    parser.add_argument("--every", type=int, default=1, help="kill at each N-th call only")
    args = parser.parse_args()
    vitx = str(Path(args.vitx).resolve())
    with tempfile.TemporaryDirectory() as base:
        full(vitx, Path(base))
        if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode != 0:
            print("left out: killed runs (there is no strace, or it may not trace)")
            return 0
        print(f"{killed(vitx, args.every, Path(base))} kills, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
