"""The Ray example on a cluster of two nodes on this machine, with an actor and then a worker killed in the middle.

Each picture must be in the table exactly once, with the numbers of the plain command line.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, noise, same

import vitx
from vitx._input import png

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the nodes talk over the loopback address; read when Ray is imported
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # else whatever runs beside the tests comes first
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'ray[data]'")
pq = pytest.importorskip("pyarrow.parquet")

SCRIPT = ROOT / "examples/ray/explain.py"
INPUTS, SIZE = 110, 5
LIMIT = 300  # seconds for one run, which takes 10 on two cores that nothing else uses


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes of a core each."""
    from ray.cluster_utils import Cluster

    # Its workers find this module and this program.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(vitx.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    os.environ["VITX"] = vitx.program()
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that all differ, one that is none, in folders; and what is no picture."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    for number in range(INPUTS - 1):
        file = folder / f"{number % 3}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png(noise(number, 120, 160, 3)))
    (folder / "broken.jpg").write_bytes((ROOT / "assets/cat.jpg").read_bytes()[:2000])
    (folder / "notes.md").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def alone(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray[Any, Any]]:
    """Maps by name, as the command line writes them."""
    out = tmp_path_factory.mktemp("alone")
    subprocess.run([vitx.program(), "explain", "-q", "--method", "gae", "-f", "npy", "-o", f"{out}/", source], capture_output=True)
    maps = {path.relative_to(out).as_posix().removesuffix(".gae.npy"): np.load(path) for path in out.rglob("*.npy")}
    assert len(maps) == INPUTS - 1
    return maps


def begin(cluster: str, source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPT, source, output, "--address", cluster, "--method", "gae", "--part-size", str(SIZE), *more]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"no end after {LIMIT} s:\n{process.communicate()[1][-3000:]}") from None
    assert process.returncode == 0, err[-3000:]
    said = [line for line in out.splitlines() if line.startswith("{")]  # Ray may say something behind it
    summary: dict[str, Any] = json.loads(said[-1])
    return summary


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of what this test has started, of all generations."""
    found: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(entry.name)] = (parent, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, ValueError):
            continue

    def own(pid: int) -> bool:
        return pid == os.getpid() or (pid in found and own(found[pid][0]))

    return {pid: about for pid, about in found.items() if own(pid)}


def victim(actor: bool) -> int | None:
    """An actor that has a worker, or the worker."""
    running = processes()
    for pid, (parent, command) in running.items():
        if " worker --quiet --unordered" in command and "Explain" in running.get(parent, (0, ""))[1]:
            return parent if actor else pid
    return None


def check(output: Path, alone: dict[str, np.ndarray[Any, Any]]) -> None:
    """Nothing is lost, doubled or different."""
    rows = pq.read_table(output).to_pylist()
    counts = collections.Counter(row["input"] for row in rows)
    assert len(rows) == len(counts) == INPUTS, counts.most_common(3)
    for row in rows:
        if row["input"] == "broken.jpg":
            assert row["status"] == "error" and "truncated" in row["error"]
            continue
        relevance = np.array(row["relevance"], np.float32).reshape(row["grid"])
        assert row["status"] == "ok" and same(relevance, alone[row["input"].removesuffix(".png")]), row["input"]
        assert json.loads(row["record"])["target"]["label"] == row["label"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("actor", [True, False], ids=["actor", "worker"])
def test_what_is_killed_in_the_middle_is_done_again(
    cluster: str, source: Path, alone: dict[str, np.ndarray[Any, Any]], tmp_path: Path, actor: bool
) -> None:
    output = tmp_path / "out"
    process = begin(cluster, source, output)
    deadline, killed = time.monotonic() + LIMIT, None
    while killed is None and process.poll() is None and time.monotonic() < deadline:
        if len(list(output.glob("*.parquet"))) >= 2:
            killed = victim(actor)
            if killed is not None:
                os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    left = INPUTS // SIZE - len(list(output.glob("*.parquet")))
    summary = ended(process)
    done = summary["done"]
    print(f"killed {'actor' if actor else 'worker'} {killed} with {left} parts to go; {summary['seconds']} s")
    assert killed is not None and left > 3, "it was over before anything could be killed"
    assert len({each["node"] for each in done}) == 2 and len(done) == INPUTS // SIZE
    assert len({each["actor"] for each in done}) == (3 if actor else 2)
    assert len({each["worker"] for each in done}) == 3
    check(output, alone)


def test_a_run_goes_on_where_it_was_left(
    cluster: str, source: Path, alone: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert len(ended(begin(cluster, source, output))["done"]) == INPUTS // SIZE
    first = {path.name: path.read_bytes() for path in output.glob("*.parquet")}
    for name in ("part-000003.parquet", "part-000021.parquet"):
        (output / name).unlink()
    summary = ended(begin(cluster, source, output))
    assert sorted(each["part"] for each in summary["done"]) == ["part-000003.parquet", "part-000021.parquet"]
    assert {path.name: path.read_bytes() for path in output.glob("*.parquet")} == first
    check(output, alone)
    other = begin(cluster, source, output, "--target", "flower")
    _, err = other.communicate(timeout=LIMIT)
    assert other.returncode == 1 and "choose another folder" in err
