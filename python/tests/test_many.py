"""Many inputs at once: order, mistakes among them, a worker that reads slowly, threads."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import noise, same
from numpy.typing import NDArray

import vitx


def test_answers_keep_the_order_of_the_inputs(worker: vitx.Worker, pictures: list[Path]) -> None:
    alone = [worker.explain(path).relevance for path in pictures]
    inputs = [pictures[number % len(pictures)] for number in range(45)]
    found = list(worker.explain_many(inputs))
    assert [f.record["input"] for f in found] == [str(path) for path in inputs]
    assert all(same(f.relevance, alone[number % len(pictures)]) for number, f in enumerate(found))


def test_mistakes_are_told_where_they_are(pictures: list[Path], tmp_path: Path) -> None:
    broken = pictures[0].read_bytes()[:2000]
    good, none, array = pictures[1], tmp_path / "none.jpg", tmp_path / "a.npy"
    inputs: list[vitx.Input] = [good, broken, none, good, bytes(900_000), array, vitx.Text("a text"), good]
    with vitx.Worker(max_body="1M", batch_size=8, max_wait=50) as worker:
        found = list(worker.explain_many(inputs, errors="yield"))
        told = [f.kind if isinstance(f, vitx.ExplainError) else "ok" for f in found]
        assert told == ["ok", "input", "input", "ok", "request", "request", "input", "ok"]
        assert "none.jpg" in str(found[2]) and "vitx.Text" in str(found[2])
        assert "1048576 bytes" in str(found[4]) and "root" in str(found[5])
        assert "line" not in found[4].record and "id" not in found[4].record
        for number in (1, 2, 4):
            with pytest.raises(vitx.ExplainError):
                list(worker.explain_many(inputs[: number + 1]))
        with pytest.raises(vitx.ExplainError, match="did you mean `gae`"):
            worker.explain(good, method="gea")
        with pytest.raises(vitx.ExplainError, match="zebra"):
            worker.explain(good, target="zebra")
        assert worker.explain(good).record["status"] == "ok"


def test_a_small_house_and_a_slow_reader_do_not_lock_each_other() -> None:
    drawn = 0

    def inputs() -> Iterator[NDArray[np.uint8]]:
        nonlocal drawn
        for drawn in range(1, 61):
            yield np.random.default_rng(drawn).integers(0, 256, (200, 200, 3), np.uint8)  # 160 KB each: no pipe holds it

    with vitx.Worker(queue=2, batch_size=1) as worker:
        most = 0
        for number, found in enumerate(worker.explain_many(inputs(), ahead=20)):
            most = max(most, drawn - number)
            if number < 3:
                time.sleep(0.3)
            assert found.relevance.shape == (12, 12)
        assert number == 59 and most == 20


def test_threads_share_a_worker() -> None:
    pixels = [noise(seed, 96, 96, 3) for seed in range(40)]
    with vitx.Worker() as worker:
        alone = [found.relevance for found in worker.explain_many(pixels)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            abreast = [found.relevance for found in pool.map(worker.explain, pixels)]
        pid = worker.pid
        assert pid is not None and all(map(same, alone, abreast))
        assert len({relevance.tobytes() for relevance in alone}) == 40
