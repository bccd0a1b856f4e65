"""One `vitx worker` that runs: lines in, lines out, and what becomes of both when it ends."""

from __future__ import annotations

import collections
import io
import json
import os
import subprocess
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import IO, Any, cast

from ._errors import WorkerDied

#: Lines of stderr that are kept to be told.
TOLD = 20

#: The lines of an answer.
Answer = list[dict[str, Any]]


class Process:
    """A child that answers in any order; requests are told apart by the number of their line, from 1."""

    def __init__(self, command: Sequence[str]) -> None:
        # A session of its own: what interrupts a notebook's cell should not end the model. It ends when its stdin does, and so
        # also when this process is killed.
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.owner = os.getpid()
        self._writing = threading.Lock()  # a line is written whole, and counted as it is written
        self._lock = threading.Lock()  # what is waited for; never held while anything blocks
        self._sent = 0
        self._waiting: dict[int, Future[Answer]] = {}
        self._parts: dict[int, Answer] = {}
        self._died: WorkerDied | None = None
        self._said: collections.deque[str] = collections.deque(maxlen=TOLD)
        self._listener = _thread(self._listen)
        self._reader = _thread(self._read)
        _all.add(self)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it is this process's, and takes requests."""
        return self._died is None and self.owner == os.getpid()

    def send(self, request: dict[str, Any]) -> Future[Answer]:
        """Asks. Waits while the worker has its house full; answers are read meanwhile, by another thread."""
        future: Future[Answer] = Future()
        with self._writing:
            number = self._sent + 1
            line = json.dumps({"id": number, **request}).encode("ascii") + b"\n"
            with self._lock:
                if self._died is not None:
                    future.set_exception(self._died)
                    return future
                self._waiting[number] = future
            self._sent = number
            try:
                _write(self._child.stdin, line)
            except OSError:
                pass  # it has ended: whoever reads its answers tells all that wait
            except BaseException:
                # Half a line would become one with the next.
                self._child.kill()
                raise
        return future

    def close(self, seconds: float = 10) -> None:
        """Asks for nothing more, waits for what is on its way, and ends it by force if that takes longer."""
        if self.owner != os.getpid():
            return
        if self._writing.acquire(timeout=seconds):
            self._writing.release()
            self.let_go()
        self._reader.join(seconds)
        if self._reader.is_alive():
            self._child.kill()
            self._reader.join()

    def let_go(self) -> None:
        """The same without waiting, for whoever may not: it ends by itself."""
        if self.owner == os.getpid() and self._writing.acquire(blocking=False):
            try:
                cast(IO[bytes], self._child.stdin).close()
            except OSError:
                pass
            finally:
                self._writing.release()

    def _read(self) -> None:
        """Takes answers until there are no more, and tells those that still wait."""
        try:
            # Unbuffered as it is, a line would be read byte by byte.
            with io.BufferedReader(cast(io.RawIOBase, self._child.stdout), 1 << 16) as lines:
                for line in lines:
                    self._take(json.loads(line))
        except (ValueError, KeyError, TypeError) as e:
            self._said.append(f"an answer that cannot be read: {e}")
            self._child.kill()
        finally:
            self._end()

    def _take(self, line: dict[str, Any]) -> None:
        # Of a line that the worker did not read whole it knows no id.
        number = line["line"] if line["id"] is None else line["id"]
        parts = self._parts.setdefault(number, [])
        parts.append(line)
        if line.get("part", 1) < line.get("parts", 1):
            return
        del self._parts[number]
        with self._lock:
            future = self._waiting.pop(number)
        future.set_result(parts)

    def _end(self) -> None:
        code = self._child.wait()
        self._listener.join(1)  # a child of the child may hold its stderr open
        died = WorkerDied(code, "\n".join(self._said))
        with self._lock:
            self._died = died
            left = list(self._waiting.values())
            self._waiting.clear()
        for future in left:
            future.set_exception(died)

    def _listen(self) -> None:
        with cast(IO[bytes], self._child.stderr) as said:
            for line in io.TextIOWrapper(io.BufferedReader(cast(io.RawIOBase, said)), errors="replace"):
                self._said.append(line.rstrip())

    def forget(self) -> None:
        """In a process that was forked: the child is the parent's, whose end it must be able to see."""
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            try:
                cast(IO[bytes], pipe).close()
            except OSError:
                pass
        self._child.returncode = 0  # it is not to be waited for


def _write(pipe: IO[bytes] | None, line: bytes) -> None:
    left = memoryview(line)
    while left:
        try:
            left = left[cast(io.RawIOBase, pipe).write(left) or 0 :]
        except ValueError as e:  # it was closed
            raise BrokenPipeError from e


def _thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, name="vitx", daemon=True)
    thread.start()
    return thread


_all: weakref.WeakSet[Process] = weakref.WeakSet()


def _forked() -> None:
    for process in list(_all):
        process.forget()
    _all.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
