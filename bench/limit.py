"""The compute limit: the same stage functions on the same files in plain processes, and nothing else.

``python -m bench.limit FOLDER`` prints ``{"seconds", "cpu_ms", "stages": {name: ms}}``, the last two a file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from cli.stage import described
from pipeline.media.reader import Limits
from pipeline.settings import get_settings
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, LocalFile
from pipeline.workflows import STAGES_OF, WorkflowType

HASH = "hash"  #: in the stack, a part of the download


class Took(NamedTuple):
    """What one stage took, in milliseconds."""

    wall: float
    cpu: float  #: with the programs that it called


def process(path: Path) -> dict[str, Took]:
    """Take one file through the stages of an upload, as if one worker ran them all; what each took."""
    with tempfile.TemporaryDirectory() as scratch:
        return _process(path, scratch)


def _process(path: Path, scratch: str) -> dict[str, Took]:
    started = _now()
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    took = {HASH: _since(started)}
    file = LocalFile(path, path.stat().st_size, digest)
    asset = Asset(media_item_id=uuid4(), key=f"uploads/{path.name}", size=file.size)
    settings = get_settings()
    for name in STAGES_OF[WorkflowType.INGEST]:
        started = _now()
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            context = Context(
                file=file if STAGES[name].needs_file else None,
                workdir=Path(folder),
                primary=Path(scratch) / "primary",
                limits=Limits(pixels=settings.image_pixel_limit),
                jpeg_quality=settings.jpeg_quality,
            )
            asset = described(asset, STAGES[name].run(asset, context))
        took[name.value] = _since(started)
    return took


def measure(paths: list[Path], warm_up: list[Path], processes: int) -> dict[str, object]:
    """Take ``paths`` through, in ``processes`` processes that have each done ``warm_up`` before."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(processes + 1)
    with fork.Pool(processes, initializer=_warm_up, initargs=(warm_up, ready)) as pool:
        ready.wait()
        started = time.perf_counter()
        took = list(pool.imap_unordered(process, paths))
        seconds = time.perf_counter() - started
    stages: Counter[str] = Counter()
    for one in took:
        stages.update({name: each.wall for name, each in one.items()})
    return {
        "seconds": seconds,
        "cpu_ms": sum(each.cpu for one in took for each in one.values()) / len(took),
        "stages": {name: total / len(took) for name, total in stages.items()},
    }


def _warm_up(paths: list[Path], ready: Barrier) -> None:
    for path in paths:
        process(path)
    ready.wait()


def _now() -> Took:
    ours, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime
    return Took(time.perf_counter() * 1000, used * 1000)


def _since(began: Took) -> Took:
    now = _now()
    return Took(now.wall - began.wall, now.cpu - began.cpu)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--warm-up", type=int, default=2, help="Files that each process does before.")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    files = sorted(given.folder.iterdir())
    print(json.dumps(measure(files[given.warm_up :], files[: given.warm_up], given.processes)))
