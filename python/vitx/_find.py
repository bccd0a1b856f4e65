"""Where the `vitx` program is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

NAME = "vitx.exe" if sys.platform == "win32" else "vitx"


def program() -> str:
    """Its path: what the environment's VITX names, else the one that was installed with this package, else the PATH's.

    Raises FileNotFoundError where there is none.
    """
    named = os.environ.get("VITX")
    if named:
        found = shutil.which(named)
        if found is None:
            raise FileNotFoundError(f"VITX names {named}, which is no program")
        return found
    for place in _installed():
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    found = shutil.which("vitx")
    if found is None:
        raise FileNotFoundError("there is no program `vitx`: reinstall the package, put it on the PATH, or name it in VITX")
    return found


def _installed() -> Iterator[Path]:
    """Where installers put programs of a package."""
    package = Path(__file__).resolve().parent
    yield Path(sysconfig.get_path("scripts")) / NAME
    yield Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))) / NAME
    yield package.parent / "bin" / NAME  # pip install --target
    yield package / NAME
