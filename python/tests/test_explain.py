"""What comes back is what the command line writes, to the last bit."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Explain, noise, same

import vitx
from vitx._input import png


def test_pictures_are_as_the_command_line_writes_them(
    worker: vitx.Worker, explained: Explain, pictures: list[Path]
) -> None:
    for path in pictures[:3]:
        array, record = explained(path)
        for given in (path, str(path), path.read_bytes()):
            found = worker.explain(given)
            assert same(found.relevance, array) and found.relevance.dtype == np.float32
        found = worker.explain(path)
        assert found.record["input"] == str(path)
        for key in ("model", "method", "target", "predictions", "size", "grid", "relevance", "checks", "seed", "version"):
            assert found.record[key] == record[key], key
        assert not {"id", "part", "parts", "relevance_values", "files"} & found.record.keys()


@pytest.mark.parametrize("shape", [(70, 90, 3), (64, 48), (33, 65, 1), (50, 40, 4)])
def test_arrays_are_sent_as_they_are(
    worker: vitx.Worker, explained: Explain, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    pixels = noise(1, *shape)
    file = tmp_path / "noise.png"
    file.write_bytes(png(pixels))
    at = png(pixels).index(b"IDAT")
    rows = np.frombuffer(zlib.decompress(png(pixels)[at + 4 :]), np.uint8).reshape(shape[0], -1)
    assert not rows[:, 0].any() and (rows[:, 1:].reshape(shape) == pixels).all()
    array, record = explained(file)
    found = worker.explain(pixels[::1])
    assert same(found.relevance, array) and found.record["target"] == record["target"]
    assert same(worker.explain(np.asfortranarray(pixels)).relevance, array)


def test_arrays_that_would_be_guessed_at_are_refused(worker: vitx.Worker) -> None:
    floats: Any = noise(1, 8, 8, 3).astype(np.float32)
    for bad in (floats, noise(1, 8, 8, 2), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(TypeError, match="expected uint8"):
            worker.explain(bad)
    with pytest.raises(TypeError, match="expected a path"):
        worker.explain(7)  # type: ignore[arg-type]


def test_texts_and_pairs(explained: Explain) -> None:
    text, pair = "A charming little film.", ("Quite good.", "Not at all: it is bad.")
    with vitx.Worker("demo-bert") as worker:
        array, record = explained("--text", text)
        found = worker.explain(vitx.Text(text))
        assert same(found.relevance, array) and found.record["tokens"] == record["tokens"]
        array, record = explained("--method", "gae", "--target", "negative", "--text-pair", *pair)
        found = worker.explain(vitx.Text(*pair), method="gae", target="negative")
        assert same(found.relevance, array) and found.record["target"] == record["target"]


def test_methods_targets_and_files(worker: vitx.Worker, explained: Explain, pictures: list[Path]) -> None:
    each = worker.explain_each(pictures[0], method=["rollout", "attn-lrp"], target="top:2", formats="overlay")
    methods = [found.record["method"]["name"] for found in each]
    assert methods == ["rollout", "attn-lrp"] * 2
    for found in each:
        assert found.files["overlay"].startswith(b"\x89PNG")
        name, target = found.record["method"]["name"], found.record["target"]["label"]
        assert same(found.relevance, explained("--method", name, "--target", target, pictures[0])[0])
    with pytest.raises(ValueError, match="explain_each"):
        worker.explain(pictures[0], target="top:2")
    assert worker.explain_each(pictures[0], target="above:0.999999") == []
    with pytest.raises(vitx.ExplainError) as nothing:
        worker.explain(pictures[0], target="above:0.999999")
    assert nothing.value.kind == "nothing"


def test_the_function_keeps_a_worker_for_each_model(explained: Explain, pictures: list[Path]) -> None:
    array, _ = explained(pictures[0])
    for _ in range(2):
        assert same(vitx.explain(pictures[0]).relevance, array)
    text = vitx.explain(vitx.Text("fine"), model="demo-bert", threads=1)
    assert same(text.relevance, explained("--text", "fine")[0])
    assert len(vitx._workers) == 2
    vitx.close()
    assert same(vitx.explain(pictures[0]).relevance, array)
    vitx.close()


def test_files_of_the_root_are_read_by_the_worker(explained: Explain, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures[0].read_bytes())
    with vitx.Worker(root=tmp_path) as worker:
        assert same(worker.explain("a.jpg").relevance, explained(pictures[0])[0])
        with pytest.raises(vitx.ExplainError, match="not inside"):
            worker.explain("../a.jpg")
