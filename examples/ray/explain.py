#!/usr/bin/env python3
"""Explains the pictures of a folder or an object store on a Ray cluster, into Parquet.

    python explain.py s3://bucket/photos s3://bucket/relevance --method gae --actors 16

Pictures are divided into parts by the order of their names. An actor is given a part, reads its pictures, explains them on a `vitx
worker` of its own, and writes one file, whole or not at all, whose name is the part's: doing a part again replaces a file by the
same rows. So nothing is lost or doubled when a worker, an actor or a node dies and Ray does its part again, nor when the whole run
is started again: parts that are there are not done anew.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
import ray
import ray.data

import vitx

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PLAN = "_plan.json"  # readers of Parquet pass over names that begin so
#: A row an input. `relevance` is the grid row by row, signed, nothing normalised; `record` is what `vitx explain --json` says.
SCHEMA = pa.schema(
    [
        ("input", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("label", pa.string()),
        ("class", pa.int32()),
        ("probability", pa.float64()),
        ("grid", pa.list_(pa.int32())),
        ("relevance", pa.list_(pa.float32())),
        ("record", pa.string()),
    ]
)


@dataclass(frozen=True)
class Asked:
    """What is asked of every picture."""

    model: str | None = None
    method: str | None = None
    target: str | None = None
    threads: int = 1


class Explain:
    """An actor: a model that stays loaded, and parts that come to it."""

    def __init__(self, source: str, output: str, asked: Asked) -> None:
        self._source, self._output, self._asked = place(source), place(output), asked
        # A worker whose process dies is started again twice for the same picture; then the actor's part fails, and with it the run.
        self._worker = vitx.Worker(asked.model, restarts=2, threads=asked.threads)

    def __call__(self, parts: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        """Does parts, and tells what it did: the rows themselves are in their files."""
        return {"told": [json.dumps(self._do(part, json.loads(names))) for part, names in zip(parts["part"], parts["names"])]}

    def _do(self, part: str, names: list[str]) -> dict[str, Any]:
        begun = time.monotonic()
        unread: dict[int, str] = {}
        found = self._worker.explain_many(
            self._pictures(names, unread), method=self._asked.method, target=self._asked.target, errors="yield"
        )
        rows = [row(name, each, unread.get(number)) for number, (name, each) in enumerate(zip(names, found, strict=True))]
        buffer = io.BytesIO()
        pa.parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer)
        put(self._output, part, buffer.getvalue())
        failed = sum(row["status"] != "ok" for row in rows)
        own = {"node": ray.get_runtime_context().get_node_id(), "actor": os.getpid(), "worker": self._worker.pid}
        return {"part": part, "rows": len(rows), "failed": failed, "seconds": round(time.monotonic() - begun, 2), **own}

    def _pictures(self, names: list[str], unread: dict[int, str]) -> Iterator[bytes]:
        """Bytes of files; of those that are not there none, and why. A store that fails otherwise ends the run, to be started again."""
        filesystem, folder = self._source
        for number, name in enumerate(names):
            try:
                with filesystem.open_input_file(f"{folder}/{name}") as file:
                    data = file.read()
            except (FileNotFoundError, PermissionError) as e:
                unread[number], data = str(e), b""
            yield data


def row(name: str, found: vitx.Explanation | vitx.ExplainError, unread: str | None) -> dict[str, Any]:
    """A line of the table."""
    if isinstance(found, vitx.ExplainError):
        record = {**found.record, "input": name}
        if unread:
            record["error"] = unread
        status, error = record["status"], record.get("error") or record.get("note")
        return {"input": name, "status": status, "error": error, "record": json.dumps(record)}
    # The same picture gives the same row, whenever it is done.
    record = {key: value for key, value in found.record.items() if key != "ms"} | {"input": name}
    target = record["target"] or {}
    return {
        "input": name,
        "status": "ok",
        "label": target.get("label"),
        "class": target.get("class"),
        "probability": target.get("probability"),
        "grid": found.relevance.shape,
        "relevance": found.relevance.ravel(),
        "record": json.dumps(record),
    }


def place(uri: str) -> tuple[Any, str]:
    """The file system of an address or a path, and the path on it."""
    filesystem, path = pa.fs.FileSystem.from_uri(uri if "://" in uri else os.path.abspath(uri))
    return filesystem, path.rstrip("/")


def put(where: tuple[Any, str], name: str, data: bytes) -> None:
    """Writes a file that is seen whole or not at all. Object stores do so by themselves."""
    filesystem, folder = where
    if filesystem.type_name not in ("local", "hdfs"):
        with filesystem.open_output_stream(f"{folder}/{name}") as file:
            file.write(data)
        return
    own = f"{folder}/.{name}.{uuid.uuid4().hex}"  # two that do the same part, one of them given up for dead, do not meet
    with filesystem.open_output_stream(own) as file:
        file.write(data)
    filesystem.move(own, f"{folder}/{name}")


def listed(where: tuple[Any, str], endings: tuple[str, ...]) -> list[str]:
    """Names of files below a folder, in their order."""
    filesystem, folder = where
    found = filesystem.get_file_info(pa.fs.FileSelector(folder, recursive=True))
    files = (each.path[len(folder) + 1 :] for each in found if each.type == pa.fs.FileType.File)
    return sorted(name for name in files if name.lower().endswith(endings))


def planned(output: tuple[Any, str], names: list[str], size: int, asked: Asked) -> None:
    """Writes down what the folder's parts are, or sees that it is the same as before.

    Raises SystemExit where it is not: parts of two runs in one folder would be doubled rows.
    """
    filesystem, folder = output
    plan = {"inputs": len(names), "names": hashlib.sha256("\n".join(names).encode()).hexdigest(), "part_size": size}
    plan["asked"] = {key: value for key, value in asdict(asked).items() if key != "threads"}
    filesystem.create_dir(folder, recursive=True)
    try:
        with filesystem.open_input_file(f"{folder}/{PLAN}") as file:
            before = json.loads(file.read())
    except FileNotFoundError:
        return put(output, PLAN, json.dumps(plan).encode())
    if before != plan:
        raise SystemExit(f"{folder} holds another run's results ({PLAN} differs): choose another folder\n{before}\n{plan}")


def run(source: str, output: str, asked: Asked, actors: int, size: int) -> dict[str, Any]:
    """Explains what is not explained yet. Gives what was done."""
    begun = time.monotonic()
    names = listed(place(source), PICTURES)
    if not names:
        raise SystemExit(f"{source}: there is no picture")
    planned(place(output), names, size, asked)
    parts = [names[start : start + size] for start in range(0, len(names), size)]
    called = [f"part-{number:06}.parquet" for number in range(len(parts))]
    there = set(listed(place(output), (".parquet",)))
    todo = [{"part": part, "names": json.dumps(names)} for part, names in zip(called, parts) if part not in there]
    told: list[dict[str, Any]] = []
    if todo:
        # A block for each part: no more than one is done again. Pictures do not pass through the object store.
        done = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
            Explain,
            fn_constructor_args=(source, output, asked),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(todo))),
            num_cpus=asked.threads,
        )
        told = [json.loads(each["told"]) for each in done.iter_rows()]
    summary = {"inputs": len(names), "parts": len(parts), "there": len(parts) - len(todo), "done": told}
    missing = set(called) - set(listed(place(output), (".parquet",)))
    if missing:
        raise SystemExit(f"parts are missing: {sorted(missing)}")
    return {**summary, "seconds": round(time.monotonic() - begun, 1)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder that all nodes see, or an address such as s3://bucket/photos")
    parser.add_argument("output", help="the same, for Parquet")
    parser.add_argument("--model", help="a built-in name, a folder that all nodes see, or a hub id")
    parser.add_argument("--method")
    parser.add_argument("--target", help="one, such as predicted")
    parser.add_argument("--actors", type=int, default=2, help="workers, each with its own model (2)")
    parser.add_argument("--threads", type=int, default=1, help="cores for each (1)")
    parser.add_argument("--part-size", type=int, default=64, help="pictures to a file; no more than these are done again (64)")
    parser.add_argument("--address", help="of the cluster (default: the one that runs here, else one is started)")
    given = parser.parse_args()
    if given.model and Path(given.model).is_dir():
        given.model = os.path.abspath(given.model)
    ray.init(address=given.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    asked = Asked(given.model, given.method, given.target, given.threads)
    print(json.dumps(run(given.source, given.output, asked, given.actors, given.part_size)))


if __name__ == "__main__":
    main()
