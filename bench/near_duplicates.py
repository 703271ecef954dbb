"""Near duplicates: what is found among edited photographs, and at what cost among a million hashes."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench import near_million, near_photographs
from bench.near_million import Cost
from bench.near_photographs import Found, Recall
from cli.stack import postgres
from cli.stack.embedded import running
from cli.stack.environment import environment
from cli.stack.roles import Role
from cli.stack.signals import INTERRUPTED, interruptible
from cli.stack.state import State
from db import migrate
from db.session import make_engine
from pipeline.errors import DailiesError
from pipeline.media.alike import THRESHOLD, WIDEST
from pipeline.media.pdq import WORTH_COMPARING

COUNT, QUERIES = 1_000_000, 1_000
#: The limits of issue 4, part 3.
MOST_FINDING_MS, LEAST_RECALL, MOST_ADDING_MS = 20.0, 0.98, 5.0


def main() -> int:
    """Measure, print a Markdown report; returns 1 when a limit is not held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--count", type=int, default=COUNT, help="hashes in the database; 0: photographs only"
    )
    parser.add_argument("--queries", type=int, default=QUERIES, help="times that each operation is measured")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("DAILIES_")]:
        del os.environ[name]
    families = near_photographs.families()
    print(_photographs(near_photographs.judge(families), near_photographs.crops()), flush=True)
    if not given.count:
        return 0
    made = near_million.hashes(given.count, families)
    with interruptible(), tempfile.TemporaryDirectory(prefix="dailies-bench-") as folder:
        state = State(Path(folder))
        with running(state, _only_postgres, say=lambda line: print(f"bench: {line}", file=sys.stderr)):
            url = environment(state)["DAILIES_DATABASE_URL"]
            migrate.upgrade(url)
            engine = make_engine(url, pool_size=1)
            cost = near_million.measure(engine, made, given.queries)
            engine.dispose()
    print(_cost(cost))
    return _judge(cost)


def _only_postgres(state: State) -> list[Role]:
    """PostgreSQL as ``dailies up`` runs it, writes to the disk included."""
    return [postgres.role(state, durable=True, on_ready=lambda: None)]


def _photographs(found: Found, crops: list[Recall]) -> str:
    lines = [
        f"{found.pictures} pictures: originals and {len(near_photographs.EDITS)} edits of each.",
        f"{found.plain} originals of a quality below {WORTH_COMPARING} were left out.",
        "",
        *_recall("edit", found.recall),
    ]
    false = " and ".join(f"{count} at {most}" for most, count in found.false_positives.items())
    lines += [
        "",
        f"False positives in {found.strangers:,} pairs of different originals: {false}.",
        f"The nearest of these pairs differs in {found.nearest_stranger} bits.",
        "",
        *_recall("cropped by, of each side", crops),
        "",
    ]
    return "\n".join(lines)


def _recall(of: str, found: list[Recall]) -> list[str]:
    lines = [
        f"| {of} | recall at {THRESHOLD} | recall at {WIDEST} | median distance | largest |",
        "|---|---:|---:|---:|---:|",
    ]
    for one in found:
        shares = " | ".join(f"{one.within[most]:.1%}" for most in near_photographs.THRESHOLDS)
        lines.append(f"| {one.edit} | {shares} | {one.median:.0f} | {one.largest} |")
    return lines


def _cost(cost: Cost) -> str:
    rows = [
        (f"find, threshold {most}", values, f"{cost.found[most][1] / max(1, cost.found[most][0]):.2%}")
        for most, values in cost.finding.items()
    ]
    rows += [
        ("compare with every hash", cost.reading_all, "100%"),
        ("a transaction that adds a hash", cost.adding, ""),
        ("the same without", cost.nothing, ""),
    ]
    lines = [
        f"{cost.count:,} hashes, {cost.index_mb:.0f} MB with their indexes. Milliseconds:",
        "",
        "| operation | times | p50 | p95 | p99 | recall |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, values, recall in rows:
        figures = " | ".join(f"{_percentile(values, share):.1f}" for share in (50, 95, 99))
        lines.append(f"| {name} | {len(values)} | {figures} | {recall} |")
    lines += ["", f"All {cost.groups:,} groups: {cost.grouping_s:.0f} s of one processor.", ""]
    return "\n".join(lines)


def _judge(cost: Cost) -> int:
    missed = []
    there, told = cost.found[THRESHOLD]
    if _percentile(cost.finding[THRESHOLD], 95) > MOST_FINDING_MS:
        missed.append(f"finding takes more than {MOST_FINDING_MS} ms at p95")
    if told < LEAST_RECALL * there:
        missed.append(f"recall is below {LEAST_RECALL}")
    if _percentile(cost.adding, 50) - _percentile(cost.nothing, 50) > MOST_ADDING_MS:
        missed.append(f"adding a hash takes more than {MOST_ADDING_MS} ms")
    print("\n".join([f"Limit not held: {line}." for line in missed] or ["Every limit is held."]))
    return int(bool(missed))


def _percentile(values: list[float], share: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except DailiesError as error:
        sys.exit(f"error {error.code}: {error}")
