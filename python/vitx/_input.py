"""What can be explained, as a request says it."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from ._errors import ExplainError


@dataclass(frozen=True)
class Text:
    """A text, or two that the model reads together."""

    text: str
    pair: str | None = None


#: A path of a picture, the bytes of its file, its pixels as uint8 [H,W,3] (also [H,W] grey, [H,W,4] with alpha), or a text.
Input = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, "NDArray[np.uint8]", Text]

#: PNG's number for a picture of so many channels.
COLOUR = {1: 0, 3: 2, 4: 6}


def request(input: Input, rooted: bool) -> tuple[dict[str, Any], str | None]:
    """The keys of a request, and the input's name where it has one. With `rooted` the worker reads files itself.

    Raises TypeError for what is no input, ExplainError for a file that cannot be read.
    """
    if isinstance(input, Text):
        given = {"text": input.text} if input.pair is None else {"pair": [input.text, input.pair]}
        return given, None
    if isinstance(input, (bytes, bytearray, memoryview)):
        return {"image": _letters(bytes(input))}, None
    if isinstance(input, np.ndarray):
        return {"image": _letters(png(input))}, None
    if isinstance(input, (str, os.PathLike)):
        name = os.fspath(input)
        return ({"path": name} if rooted else {"image": _letters(_read(name))}), name
    raise TypeError(f"expected a path, bytes, an array or vitx.Text, and got {type(input).__name__}")


def _letters(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _read(name: str) -> bytes:
    """The file's bytes. What the worker knows by a file's ending it would not know by its bytes."""
    if Path(name).suffix.lower() in (".npy", ".txt"):
        said = "is read by its ending, which needs a worker with a root: vitx.Worker(root=FOLDER)"
        raise ExplainError({"status": "error", "input": name, "kind": "request", "error": said})
    try:
        return Path(name).read_bytes()
    except OSError as e:
        hint = "; a text is vitx.Text(...)" if isinstance(e, FileNotFoundError) else ""
        said = f"cannot be read: {e.strerror}{hint}"
        raise ExplainError({"status": "error", "input": name, "kind": "input", "error": said}) from e


def png(pixels: NDArray[Any]) -> bytes:
    """A PNG file of uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4]: the same pixels come out of it.

    Raises TypeError for any other array: how its values are to be read would be a guess.
    """
    shape = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
    if pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] not in COLOUR or 0 in shape:
        raise TypeError(f"expected uint8 [H,W], [H,W,3] or [H,W,4], and got {pixels.dtype} {list(pixels.shape)}")
    height, width, channels = shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # a filter of 0 in front of each row: the values as they are
    rows[:, 1:] = pixels.reshape(height, width * channels)
    head = struct.pack(">IIBBBBB", width, height, 8, COLOUR[channels], 0, 0, 0)
    # It is read again at once, a process further: quick counts, small does not.
    data = zlib.compress(rows.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
