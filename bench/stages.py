"""``python -m bench.stages``: what each stage costs for each kind of file, without any server."""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import NamedTuple
from uuid import uuid4

from cli.stage import described
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, LocalFile
from pipeline.workflows import STAGES_OF, StageName, WorkflowType
from tests import kinds
from tests.faults.results import machine

HASH = "sha256"


class Took(NamedTuple):
    """What one run of a stage took, in milliseconds."""

    wall: float
    cpu: float  #: with the programs that it called


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="files; one of every type is made without it")
    parser.add_argument("--rounds", type=int, default=5, help="of each file; the medians are told")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        if not given.folder:
            kinds.make(folder)
        _measure(folder, given.rounds)


def _measure(folder: Path, rounds: int) -> None:
    columns = [HASH, *STAGES_OF[WorkflowType.INGEST]]
    print(f"{machine()}; median of {rounds} rounds; wall / CPU in milliseconds\n")
    print(f"| file | MB | {' | '.join(columns)} | all |")
    print("|---" * (len(columns) + 3) + "|")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        runs: dict[str, list[Took]] = defaultdict(list)
        _process(path)  # whatever is imported with the first file of a type
        for _ in range(rounds):
            for name, took in _process(path).items():
                runs[name].append(took)
        middle = {
            name: Took(*(median(one) for one in zip(*each, strict=True))) for name, each in runs.items()
        }
        cells = [f"{middle[name].wall:.1f} / {middle[name].cpu:.1f}" for name in columns]
        total = (
            f"{sum(one.wall for one in middle.values()):.0f} / {sum(one.cpu for one in middle.values()):.0f}"
        )
        print(f"| {path.name} | {path.stat().st_size / 1e6:.2f} | {' | '.join(cells)} | {total} |")


def _process(path: Path) -> dict[str, Took]:
    """Take one file through the stages of an upload, as if one worker ran them all."""
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        began = _now()
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        took[HASH] = _since(began)
        file = LocalFile(path, path.stat().st_size, digest)
        asset = Asset(media_item_id=uuid4(), key=f"uploads/{path.name}", size=file.size)
        for name in STAGES_OF[WorkflowType.INGEST]:
            workdir = Path(folder) / name
            workdir.mkdir()
            needed = file if STAGES[name].needs_file else None
            context = Context(file=needed, workdir=workdir, primary=Path(folder) / "primary")
            began = _now()
            output = STAGES[StageName(name)].run(asset, context)
            took[str(name)] = _since(began)
            asset = described(asset, output)
    return took


def _now() -> Took:
    ours, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime
    return Took(time.perf_counter() * 1000, used * 1000)


def _since(began: Took) -> Took:
    now = _now()
    return Took(now.wall - began.wall, now.cpu - began.cpu)


if __name__ == "__main__":
    main()
