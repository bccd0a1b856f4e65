"""What can go wrong."""

from __future__ import annotations

from typing import Any


class ExplainError(Exception):
    """An input has no explanation. `record` is what the worker answered, `kind` whose fault it is.

    Kinds: `request`, `input`, `time`, `stopped`, `fault`, as README's "As a service" has them; and `nothing`: a target such as
    `above:0.5` means no output of this input.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(record)  # so that it can be pickled
        self.record = record

    @property
    def kind(self) -> str:
        """Whose fault it is."""
        return str(self.record.get("kind", self.record.get("status", "fault")))

    def __str__(self) -> str:
        """The sentence, behind the input's name where there is one."""
        said = str(self.record.get("error") or self.record.get("note") or "the worker gave no reason")
        name = str(self.record.get("input") or "")  # of texts the text itself
        name = name if len(name) <= 80 else name[:80] + "..."
        return f"{name}: {said}" if name and not said.startswith(name) else said


class WorkerDied(Exception):
    """The worker's process ended before it answered: nobody knows whether its requests were explained.

    `code` is its exit code, below 0 the signal that killed it; `stderr` its last lines.
    """

    def __init__(self, code: int | None, stderr: str, why: str = "") -> None:
        super().__init__(code, stderr, why)
        self.code, self.stderr, self.why = code, stderr, why

    @property
    def again(self) -> bool:
        """Whether another process may do better: 2 says that its model or options are wrong."""
        return self.code != 2

    def __str__(self) -> str:
        """How it ended, and what it said last."""
        if self.why:
            return self.why
        killed = self.code is not None and self.code < 0
        how = f"was killed by signal {-(self.code or 0)}" if killed else f"ended with exit code {self.code}"
        return f"vitx worker {how} before it answered" + (f"; it said last:\n{self.stderr}" if self.stderr else "")
