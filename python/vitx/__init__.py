"""Why did the model say that? Relevance of patches and words as numpy arrays, by the `vitx` program that this package carries.

    import vitx

    found = vitx.explain("cat.jpg", method="gae")        # a path, bytes of a file, or an array uint8 [H,W,3]
    found.relevance                                      # float32 [gridH,gridW], signed, nothing normalised
    found.record["target"]["label"]                      # what `vitx explain --json` says

    with vitx.Worker("./my-checkpoint", batch_size=8) as worker:
        for found in worker.explain_many(paths):         # many on their way at once, answers in the order of the inputs
            ...
    vitx.explain(vitx.Text("A charming little film."), model="demo-bert").relevance    # float32 [T]

A worker is a process that keeps its model loaded. Numbers are those of `vitx explain`, to the last bit.
"""

from __future__ import annotations

import os
import threading

from ._errors import ExplainError, WorkerDied
from ._explanation import Explanation
from ._find import program
from ._input import Input, Text
from ._options import Option, command
from ._worker import Names, Worker

__all__ = [
    "ExplainError",
    "Explanation",
    "Input",
    "Text",
    "Worker",
    "WorkerDied",
    "close",
    "explain",
    "program",
]

_lock = threading.Lock()
_workers: dict[tuple[str, ...], Worker] = {}


def explain(
    input: Input,
    *,
    method: Names | None = None,
    target: Names | None = None,
    model: str | None = None,
    root: str | os.PathLike[str] | None = None,
    formats: Names = (),
    **options: Option,
) -> Explanation:
    """Explains one input: as [`Worker.explain`], on a worker of this model and these options that is started at the first call.

    It stays for the next one, until `close()` or the end of this process.
    """
    # What would be asked of the command line tells workers apart: options need not be hashable.
    key = command("vitx", model, {**options, "root": root})
    with _lock:
        worker = _workers.get(key)
        if worker is None:
            worker = _workers[key] = Worker(model, restarts=1, root=root, **options)
    return worker.explain(input, method=method, target=target, formats=formats)


def close() -> None:
    """Ends the workers of `explain`. The next call starts another one."""
    with _lock:
        workers = list(_workers.values())
        _workers.clear()
    for worker in workers:
        worker.close()

