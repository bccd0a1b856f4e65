"""What was found, as Python reads it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._errors import ExplainError

#: Keys of an answer that belong to the line and not to what was found.
LINE = ("id", "part", "parts", "relevance_values", "files")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one method found for one input and target."""

    #: float32, signed, nothing normalised: [gridH,gridW] of pictures, [T] of texts, [T,T] of matrices.
    relevance: NDArray[np.float32]
    #: As `vitx explain --json` gives it, with `notes` on how the input was read.
    record: dict[str, Any]
    #: Files that `formats` asked for, by format.
    files: dict[str, bytes]


def explanations(lines: Sequence[dict[str, Any]], name: str | None) -> list[Explanation]:
    """Of an answer's lines; a target that means no output of this input has none.

    Raises ExplainError for an answer that is an error.
    """
    found = []
    for line in lines:
        record = {key: value for key, value in line.items() if key not in LINE}
        if name is not None:
            record["input"] = name  # the worker was given its bytes
        if record["status"] == "error":
            record.pop("line", None)  # of a pipe that is nobody's business
            raise ExplainError(record)
        if record["status"] == "ok":
            found.append(Explanation(_array(line["relevance_values"]["npy"]), record, _files(line)))
    return found


def single(lines: Sequence[dict[str, Any]], name: str | None) -> Explanation:
    """The only one.

    Raises ExplainError where there is none, ValueError where there are several.
    """
    found = explanations(lines, name)
    if not found:
        nothing = {key: value for key, value in lines[0].items() if key not in LINE}
        raise ExplainError(nothing if name is None else {**nothing, "input": name})
    if len(found) > 1:
        raise ValueError(f"{len(found)} methods and targets were asked for; `explain_each` gives a list")
    return found[0]


def _array(letters: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(io.BytesIO(base64.b64decode(letters)), allow_pickle=False)
    return array


def _files(line: dict[str, Any]) -> dict[str, bytes]:
    return {name: base64.b64decode(letters) for name, letters in line.get("files", {}).items()}
