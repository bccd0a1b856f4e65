"""Workers that die, processes that fork, and what is left when Python ends."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import noise, same
from numpy.typing import NDArray

import vitx

posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")


def kill(worker: vitx.Worker) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)


def until(done: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def gone(pid: int) -> bool:
    """Whether no such process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@posix
def test_a_killed_worker_is_an_error_and_the_next_request_has_a_new_one() -> None:
    with vitx.Worker() as worker:
        worker.explain(noise(0, 64, 64, 3))
        with pytest.raises(vitx.WorkerDied, match="killed by signal 9"):
            for number, _ in enumerate(worker.explain_many(noise(seed, 64, 64, 3) for seed in range(60))):
                if number == 5:
                    kill(worker)
        assert worker.explain(noise(0, 64, 64, 3)).record["status"] == "ok"


@posix
def test_requests_of_a_killed_worker_are_sent_again_where_that_is_wanted() -> None:
    with vitx.Worker(restarts=2) as worker:
        pixels = [noise(seed, 64, 64, 3) for seed in range(80)]
        alone = [found.relevance for found in worker.explain_many(pixels)]
        pids: set[int | None] = set()

        def inputs() -> Iterator[NDArray[np.uint8]]:
            for number, each in enumerate(pixels):
                pids.add(worker.pid)
                if number in (20, 60):
                    kill(worker)
                yield each

        again = [found.relevance for found in worker.explain_many(inputs())]
        assert len(again) == 80 and all(map(same, again, alone))
        assert len(pids - {None}) == 3


@posix
def test_an_input_that_ends_every_worker_is_given_up() -> None:
    killed: set[int] = set()

    def murder() -> None:
        while len(killed) < 2:
            pid = worker.pid
            if pid is not None and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.01)

    with vitx.Worker(restarts=1) as worker:
        murderer = threading.Thread(target=murder)
        murderer.start()
        with pytest.raises(vitx.WorkerDied, match="killed by signal 9"):
            worker.explain(noise(0, 64, 64, 3), method="rise:n=20000")
        murderer.join()
        assert len(killed) == 2 and worker.explain(noise(0, 64, 64, 3)).record["status"] == "ok"


def test_wrong_options_and_models_are_told_by_what_the_program_says() -> None:
    for worker, said in (
        (vitx.Worker(batch_sise=3), "--batch-sise"),
        (vitx.Worker("./no/such/model", restarts=5), "no/such/model"),
        (vitx.Worker(method="gea"), "did you mean `gae`"),
    ):
        with pytest.raises(vitx.WorkerDied, match="exit code 2") as died:
            worker.explain(noise(0, 8, 8, 3))
        assert said in str(died.value) and died.value.code == 2
        assert str(pickle.loads(pickle.dumps(died.value))) == str(died.value)
    with pytest.raises(TypeError, match="`listen` is no option here"):
        vitx.Worker(listen="127.0.0.1:0")


def test_the_program_is_looked_for_where_one_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITX", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="VITX names"):
        vitx.program()
    monkeypatch.delenv("VITX")
    program = tmp_path / "vitx"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    # What was installed with the package comes first.
    assert Path(vitx.program()).name in ("vitx", "vitx.exe")


@posix
def test_a_pickled_worker_and_a_forked_process_have_their_own() -> None:
    pixels = noise(3, 64, 64, 3)
    with vitx.Worker(restarts=3, batch_size=2) as worker:
        here = worker.explain(pixels).relevance
        copy = pickle.loads(pickle.dumps(worker))
        assert copy.pid is None and copy._given == worker._given
        assert same(copy.explain(pixels).relevance, here) and copy.pid != worker.pid
        copy.close()
        asked, parent = worker.explain_many([pixels] * 4), worker.pid
        next(asked)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                fresh = worker.pid is None and same(worker.explain(pixels).relevance, here) and worker.pid != parent
                try:
                    next(asked)
                except vitx.WorkerDied as e:
                    code = 0 if fresh and "forked" in str(e) else 2
            finally:
                worker.close()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(list(asked)) == 3 and worker.pid == parent
        assert same(worker.explain(pixels).relevance, here)


@posix
@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("os.kill(os.getpid(), 9)", -9),
        ("raise SystemExit(3)", 3),
        ("del worker; time.sleep(60)", -9),
        ("next(worker.explain_many([numpy.zeros((8, 8, 3), 'uint8')] * 30, method='rise:n=8', ahead=20))", 0),
    ],
)
def test_no_worker_is_left_behind(end: str, code: int) -> None:
    script = "import os, sys, time, numpy, vitx\nworker = vitx.Worker()\n"
    script += "worker.explain(numpy.zeros((8, 8, 3), 'uint8'))\nvitx.explain(numpy.zeros((8, 8, 3), 'uint8'))\n"
    script += "print(worker.pid, next(iter(vitx._workers.values())).pid, flush=True)\n" + end
    python = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert python.stdout is not None
    try:
        pids = [int(pid) for pid in python.stdout.readline().split()]
        assert len(pids) == 2
        if end.startswith("del"):
            assert until(lambda: gone(pids[0])) and not gone(pids[1])
            python.kill()
        assert python.wait(300) == code
    finally:
        python.kill()
    assert until(lambda: all(map(gone, pids)))


def test_the_module_runs_the_program() -> None:
    said = subprocess.run([sys.executable, "-m", "vitx", "--version"], check=True, capture_output=True, text=True).stdout
    assert said.startswith("vitx ")
