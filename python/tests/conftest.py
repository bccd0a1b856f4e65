"""What tests share: pictures, and what the command line says of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vitx

ROOT = Path(__file__).resolve().parents[2]
os.environ.pop("VITX_MODEL", None)

#: Gives the array and the record of `vitx explain`.
Explain = Callable[..., tuple[NDArray[np.float32], dict[str, Any]]]


@pytest.fixture
def explained(tmp_path: Path) -> Explain:
    """`vitx explain -f npy --json` of one input."""

    def run(*args: str | Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
        command = [vitx.program(), "explain", "-q", "--json", "--overwrite", "-f", "npy", "-o", f"{tmp_path}/cli/", *args]
        record = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return np.load(record["outputs"]["npy"]), record

    return run


@pytest.fixture(scope="session")
def pictures() -> list[Path]:
    """Ten photographs."""
    return sorted([*(ROOT / "assets").glob("*.jpg"), *(ROOT / "tests/data/vision").glob("*.jpg")])[:10]


@pytest.fixture(scope="module")
def worker() -> Iterator[vitx.Worker]:
    """One of the built-in model for pictures."""
    with vitx.Worker() as worker:
        yield worker


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Pixels uint8 of this shape: blocks of colour, so that pictures differ in what a model sees."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (-(-shape[0] // 16), -(-shape[1] // 16), *shape[2:]), np.uint8)
    return np.repeat(np.repeat(small, 16, 0), 16, 1)[: shape[0], : shape[1]]


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether they are equal to the last bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
