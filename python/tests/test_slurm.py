"""The array job's script without Slurm: its parts together are the whole, whatever stopped one of them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, noise, same

import vitx
from vitx._input import png

SCRIPTS = ROOT / "examples/slurm"
TASKS, INPUTS = 3, 60

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")


def task(number: int, photos: Path, out: Path, *more: str, first: int = 1, **env: str) -> subprocess.Popen[bytes]:
    """One task of the array, whose numbers begin at `first`."""
    own = {"SLURM_ARRAY_TASK_ID": first + number, "SLURM_ARRAY_TASK_MIN": first, "SLURM_ARRAY_TASK_COUNT": TASKS}
    path = os.pathsep.join([str(Path(vitx.program()).parent), os.environ["PATH"]])
    env = {**os.environ, **{key: str(value) for key, value in own.items()}, **env, "PATH": path}
    return subprocess.Popen(["bash", SCRIPTS / "explain.sbatch", photos, out, *more], env=env, stderr=subprocess.PIPE)


def whole(process: subprocess.Popen[bytes]) -> None:
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err.decode()


def gathered(out: Path, ending: str) -> str:
    """What the script for it makes of the tables."""
    return subprocess.run(["bash", SCRIPTS / "gather.sh", out, ending], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("photos")
    for number in range(INPUTS):
        (folder / f"{number % 2}").mkdir(exist_ok=True)
        (folder / f"{number % 2}/{number}.png").write_bytes(png(noise(number, 64, 64, 3)))
    return folder


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray[Any, Any]]:
    """Maps by name of the run as a whole."""
    out = tmp_path_factory.mktemp("alone")
    subprocess.run([vitx.program(), "explain", "-q", "-f", "npy", "-o", f"{out}/", photos], check=True)
    return maps(out)


def maps(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, np.ndarray[Any, Any]] = {}
    for path in folder.rglob("*.npy"):
        name = "/".join(path.parts[-2:])  # the pictures' folder and its name
        assert name not in found
        found[name] = np.load(path)
    return found


def check(out: Path, alone: dict[str, np.ndarray[Any, Any]]) -> None:
    together = maps(out)
    assert together.keys() == alone.keys() and all(same(together[name], alone[name]) for name in alone)


@pytest.mark.parametrize("first", [0, 1])
def test_the_parts_together_are_the_whole(
    photos: Path, alone: dict[str, np.ndarray[Any, Any]], tmp_path: Path, first: int
) -> None:
    for number in range(TASKS):
        whole(task(number, photos, tmp_path, first=first))
    check(tmp_path, alone)
    rows = [json.loads(line) for line in gathered(tmp_path, "jsonl").splitlines()]
    assert len(rows) == len({row["input"] for row in rows}) == INPUTS


def test_tables_of_all_kinds_become_one(photos: Path, tmp_path: Path) -> None:
    for number in range(TASKS):
        for kind in ("csv", "parquet"):
            whole(task(number, photos, tmp_path / kind, VITX_TABLE=kind))
    rows = list(csv.DictReader(gathered(tmp_path / "csv", "csv").splitlines()))
    assert len(rows) == len({row["input"] for row in rows}) == INPUTS and {row["status"] for row in rows} == {"ok"}
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: the folder of Parquet parts is not read")
    table = pq.read_table(tmp_path / "parquet/tables")
    assert sorted(table["input"].to_pylist()) == sorted(row["input"] for row in rows)


@pytest.mark.parametrize("signal", [signal.SIGTERM, signal.SIGKILL], ids=["time limit", "killed"])
def test_a_task_that_was_stopped_goes_on(
    photos: Path, alone: dict[str, np.ndarray[Any, Any]], tmp_path: Path, signal: signal.Signals
) -> None:
    stopped = task(1, photos, tmp_path)
    deadline = time.monotonic() + 300
    while len(maps(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal)
    stopped.communicate(timeout=300)
    done = len(maps(tmp_path))
    assert stopped.returncode in (130, -signal) and 3 <= done < INPUTS // TASKS + 8
    for number in range(TASKS):
        whole(task(number, photos, tmp_path))
    check(tmp_path, alone)
    rows = [json.loads(line) for line in gathered(tmp_path, "jsonl").splitlines()]
    assert len(rows) == len({row["input"] for row in rows}) == INPUTS


def test_what_is_no_array_job_is_told(photos: Path, tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    said = subprocess.run(["bash", SCRIPTS / "explain.sbatch", photos, tmp_path], env=env, capture_output=True, text=True)
    assert said.returncode != 0 and "this is an array job" in said.stderr
