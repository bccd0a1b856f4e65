"""Options of `vitx worker` as Python writes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Union

#: `True` is a flag, a list is the same option several times.
Option = Union[str, int, float, bool, "os.PathLike[str]", Sequence[str], None]

#: What this package needs to be as it is.
OWN = {"listen", "unordered", "quiet", "model"}


def command(program: str, model: str | None, options: Mapping[str, Option]) -> tuple[str, ...]:
    """The command line of a worker. Which options there are is for `vitx worker --help` to say.

    Raises TypeError for options that this package sets itself.
    """
    # Whoever asks tells answers apart by their number, and one that takes long must not hold up the others'.
    words = [program, "worker", "--quiet", "--unordered"]
    if model is not None:
        words.append(f"--model={model}")
    for name, value in sorted(options.items()):
        if name in OWN:
            raise TypeError(f"`{name}` is no option here")
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, (str, int, float, os.PathLike)):
            words.append(f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}")
        else:
            words.extend(f"{flag}={each}" for each in value)
    return tuple(words)
