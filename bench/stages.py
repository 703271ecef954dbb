"""``python -m bench.stages``: what each stage costs for each kind of file, without any server."""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.limit import HASH, Took, process
from pipeline.workflows import STAGES_OF, WorkflowType
from tests import kinds
from tests.faults.results import machine


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
        process(path)  # whatever is imported with the first file of a type
        for _ in range(rounds):
            for name, took in process(path).items():
                runs[name].append(took)
        middle = {
            name: Took(*(median(one) for one in zip(*each, strict=True))) for name, each in runs.items()
        }
        cells = [f"{middle[name].wall:.1f} / {middle[name].cpu:.1f}" for name in columns]
        total = (
            f"{sum(one.wall for one in middle.values()):.0f} / {sum(one.cpu for one in middle.values()):.0f}"
        )
        print(f"| {path.name} | {path.stat().st_size / 1e6:.2f} | {' | '.join(cells)} | {total} |")


if __name__ == "__main__":
    main()
