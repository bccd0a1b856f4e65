"""A worker: a model that stays loaded in a process of its own, started when it is first asked."""

from __future__ import annotations

import atexit
import collections
import functools
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, Union, overload

from ._errors import ExplainError, WorkerDied
from ._explanation import Explanation, explanations, single
from ._find import program
from ._input import Input, request
from ._options import Option, command
from ._process import Answer, Process

#: A name or several.
Names = Union[str, Sequence[str]]


class Worker:
    """A `vitx worker` of one model. It may be asked by several threads, pickled, and taken across a fork: each process starts its own.

    - `model`: a built-in name, a folder, or a hub id; None is the program's default.
    - `restarts`: how often an input whose worker's process died is given to a new one. Then, and by default, `WorkerDied` is raised.
    - `root`: the folder whose files the worker reads itself, by paths within it; without it this process reads them.
    - `options`: those of `vitx worker` in Python's letters, such as `batch_size=8, threads=2, offline=True, dtype="bf16"`.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        restarts: int = 0,
        root: str | os.PathLike[str] | None = None,
        **options: Option,
    ) -> None:
        self._given = (model, restarts, root, options)
        self._command = command("vitx", model, {**options, "root": root})[1:]
        self._restarts = restarts
        self._rooted = root is not None
        self._process: Process | None = None
        self._starting = threading.Lock()
        _all.add(self)

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.alive else None

    def explain(
        self, input: Input, *, method: Names | None = None, target: Names | None = None, formats: Names = ()
    ) -> Explanation:
        """Explains one input by one method for one target.

        `method` and `target` are what `--method` and `--target` of the command line read, `formats` names files to be made too
        (`overlay`, `html`, ...). Raises ExplainError where there is no explanation, WorkerDied when the process ended.
        """
        asked = self._ask(input, _more(method, target, formats))
        return single(asked.answer(), asked.name)

    def explain_each(
        self, input: Input, *, method: Names | None = None, target: Names | None = None, formats: Names = ()
    ) -> list[Explanation]:
        """The same for several methods or targets, from one forward pass, target by target."""
        asked = self._ask(input, _more(method, target, formats))
        return explanations(asked.answer(), asked.name)

    @overload
    def explain_many(
        self,
        inputs: Iterable[Input],
        *,
        method: Names | None = ...,
        target: Names | None = ...,
        formats: Names = ...,
        ahead: int = ...,
        errors: Literal["raise"] = ...,
    ) -> Iterator[Explanation]: ...

    @overload
    def explain_many(
        self,
        inputs: Iterable[Input],
        *,
        method: Names | None = ...,
        target: Names | None = ...,
        formats: Names = ...,
        ahead: int = ...,
        errors: Literal["yield"],
    ) -> Iterator[Explanation | ExplainError]: ...

    def explain_many(
        self,
        inputs: Iterable[Input],
        *,
        method: Names | None = None,
        target: Names | None = None,
        formats: Names = (),
        ahead: int = 32,
        errors: Literal["raise", "yield"] = "raise",
    ) -> Iterator[Explanation | ExplainError]:
        """Explains inputs as they come, `ahead` of them on their way at once, and gives answers in their order, one for each.

        With `errors="yield"` an input without an explanation gives its ExplainError and the others go on. WorkerDied is always
        raised: it says nothing about one input.
        """
        more = _more(method, target, formats)
        line: collections.deque[_Asked | ExplainError] = collections.deque()
        for input in inputs:
            try:
                line.append(self._ask(input, more))
            except ExplainError as e:
                line.append(e)
            if len(line) >= max(ahead, 1):
                yield self._first(line, errors)
        while line:
            yield self._first(line, errors)

    def close(self, seconds: float = 10) -> None:
        """Ends the process, after what is on its way if that takes no longer than this. A worker that is asked again starts another one."""
        with self._starting:
            process, self._process = self._process, None
        if process is not None:
            process.close(seconds)

    def _first(self, line: collections.deque[_Asked | ExplainError], errors: str) -> Explanation | ExplainError:
        """The oldest one's answer."""
        asked = line.popleft()
        found: Explanation | ExplainError
        try:
            found = asked if isinstance(asked, ExplainError) else single(asked.answer(among=line), asked.name)
        except ExplainError as e:
            found = e
        if isinstance(found, ExplainError) and errors == "raise":
            raise found
        return found

    def _ask(self, input: Input, more: dict[str, Any]) -> _Asked:
        given, name = request(input, self._rooted)
        return _Asked(self, {**given, **more}, name)

    def _send(self, line: dict[str, Any]) -> Future[Answer]:
        with self._starting:
            if self._process is None or not self._process.alive:
                self._process = Process([program(), *self._command])
            process = self._process
        return process.send(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # What it was made of, and not its process.
        model, restarts, root, options = self._given
        return functools.partial(type(self), model, restarts=restarts, root=root, **options), ()

    def __repr__(self) -> str:
        return f"<vitx.Worker {' '.join(self._command)}, pid {self.pid}>"

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            # Not to be waited for here: it may be the collector's thread.
            process.let_go()


class _Asked:
    """A request on its way. It is kept until it is answered, to be sent again if its process dies."""

    def __init__(self, worker: Worker, line: dict[str, Any], name: str | None) -> None:
        self.name = name
        self._worker, self._line, self._tries, self._owner = worker, line, 0, os.getpid()
        self._future = worker._send(line)

    def answer(self, among: Iterable[_Asked | ExplainError] = ()) -> Answer:
        """Waits for it. When the process has died, all `among` whose process it was are sent again too, in their order."""
        if self._owner != os.getpid():
            raise WorkerDied(None, "", "this was asked before the process was forked; ask again")
        while True:
            try:
                return self._future.result()
            except WorkerDied as e:
                if not self._again(e):
                    raise
                for other in among:
                    if isinstance(other, _Asked) and other._future.done():
                        lost = other._future.exception()
                        if isinstance(lost, WorkerDied):
                            other._again(lost)

    def _again(self, died: WorkerDied) -> bool:
        if self._tries >= self._worker._restarts or not died.again:
            return False
        self._tries += 1
        self._future = self._worker._send(self._line)
        return True


def _more(method: Names | None, target: Names | None, formats: Names) -> dict[str, Any]:
    """The keys of a request beside its input."""
    files = [formats] if isinstance(formats, str) else list(formats)
    asked: dict[str, Any] = {"formats": ["npy", *files]}
    for key, value in (("method", method), ("target", target)):
        if value is not None:
            asked[key] = value if isinstance(value, str) else list(value)
    return asked


_all: weakref.WeakSet[Worker] = weakref.WeakSet()


def _forked() -> None:
    for worker in list(_all):
        # Whoever held it may not be here.
        worker._starting = threading.Lock()
        worker._process = None


def _end() -> None:
    # Nobody is left to read what is on its way.
    for worker in list(_all):
        worker.close(1)


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
