"""What the queue's statements cost with a small and with a large past, side by side in one run."""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, make_url, text

from bench import queue_bloat, queue_rows
from bench.queue_operations import Subject
from bench.queue_plans import Plan
from cli.stack import postgres
from cli.stack.embedded import running
from cli.stack.environment import environment
from cli.stack.roles import Role
from cli.stack.signals import INTERRUPTED, interruptible
from cli.stack.state import State
from db import migrate
from db.session import make_engine
from pipeline.errors import DailiesError

SMALL, LARGE, ROUNDS, LIFE = 10_000, 5_000_000, 2_000, 1_000_000
WARM_UP = 50  #: rounds before the clocks count: caches are filled, statements prepared
COLLECT_EVERY = 20  #: rounds
#: The limits of issue 3, part 3.
MOST_RATIO, MOST_STATS_MS, MOST_BLOAT = 1.5, 50.0, 2.0


def main() -> int:
    """Measure, print a Markdown report; returns 1 when a limit is not held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=SMALL, help="finished rows of the small database")
    parser.add_argument("--large", type=int, default=LARGE, help="finished rows of the large one")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times that each operation is measured")
    parser.add_argument("--bloat", action="store_true", help="measure bloat instead")
    parser.add_argument("--life", type=int, default=LIFE, help="rows that live through their life for it")
    parser.add_argument("--explain", type=Path, help="write the plans at the large size here")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("DAILIES_")]:
        del os.environ[name]
    with interruptible(), tempfile.TemporaryDirectory(prefix="dailies-bench-") as folder:
        state = State(Path(folder))
        with running(state, _only_postgres, say=_say):
            url = environment(state)["DAILIES_DATABASE_URL"]
            return _bloat(url, given) if given.bloat else _scale(url, given)


def _only_postgres(state: State) -> list[Role]:
    """PostgreSQL as ``dailies up`` runs it, writes to the disk included."""
    return [postgres.role(state, durable=True, on_ready=lambda: None)]


def _scale(url: str, given: argparse.Namespace) -> int:
    with _database(url, "small") as small, _database(url, "large") as large:
        subjects = {"small": Subject(small), "large": Subject(large)}
        for subject, rows in ((subjects["small"], given.small), (subjects["large"], given.large)):
            _prepare(subject, rows)
        _measure(list(subjects.values()), given.rounds)
        seconds = {name: copy.deepcopy(subject.seconds) for name, subject in subjects.items()}
        with subjects["large"].recorder.listening(large):
            subjects["large"].round()
        plans = subjects["large"].recorder.plans
    if given.json:
        given.json.write_text(json.dumps(seconds) + "\n", encoding="utf-8")
    if given.explain:
        given.explain.write_text(_told(plans), encoding="utf-8")
    return _report(seconds, plans)


def _bloat(url: str, given: argparse.Namespace) -> int:
    with _database(url, "bloat") as engine:
        found = queue_bloat.measure(engine, given.life, say=_say)
    print(queue_bloat.markdown(found))
    return int(any(table.ratio > MOST_BLOAT for table in found))


@contextmanager
def _database(url: str, name: str) -> Iterator[Engine]:
    """A migrated database of its own on the server, and an engine with one connection to it."""
    admin = make_engine(url, pool_size=1)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    migrate.upgrade(own)
    engine = make_engine(own, pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()


def _prepare(subject: Subject, rows: int) -> None:
    started = time.perf_counter()
    with subject.engine.connect() as connection:
        queue_rows.fill(connection, rows)
    subject.wait_in_line()
    for _ in range(WARM_UP):
        subject.round()
    with subject.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM (ANALYZE) {', '.join(queue_rows.TABLES)}"))
        connection.execute(text("CHECKPOINT"))
    subject.seconds.clear()
    _say(f"{rows:,} finished rows are there after {time.perf_counter() - started:.0f} s")


def _measure(subjects: list[Subject], rounds: int) -> None:
    """Round by round on each, in an order that is drawn, so that what disturbs one disturbs the other.

    Python's collector of garbage runs between the rounds: within, it would always hit the same operation.
    """
    gc.disable()
    for number in range(rounds):
        if number % COLLECT_EVERY == 0:
            gc.collect()
        for subject in random.sample(subjects, len(subjects)):
            subject.round()
        if (number + 1) % 500 == 0:
            _say(f"round {number + 1} of {rounds}")


def _report(seconds: dict[str, dict[str, list[float]]], plans: list[Plan]) -> int:
    head = ("operation", "times", "small p50", "large p50", "small p99", "large p99", "p99 ratio")
    lines: list[tuple[object, ...]] = [head, ("---", *["---:"] * (len(head) - 1))]
    missed: list[str] = []
    for operation, small in seconds["small"].items():
        large = seconds["large"][operation]
        figures = [_percentile(values, share) for share in (50, 99) for values in (small, large)]
        ratio = figures[3] / figures[2]
        lines.append((operation, len(large), *(f"{figure:.2f}" for figure in figures), f"{ratio:.2f}"))
        if ratio > MOST_RATIO:
            missed.append(f"{operation}: p99 {ratio:.2f} times the small one's")
        if operation == "stats" and figures[3] > MOST_STATS_MS:
            missed.append(f"stats: p99 {figures[3]:.1f} ms")
    print("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))
    print("\nMilliseconds, a whole transaction each, as the product's own functions make it.")
    whole = sorted({plan.operation for plan in plans if plan.reads_whole(*queue_rows.TABLES)})
    missed += [f"{operation}: reads a table from end to end" for operation in whole]
    verdict = [f"Limit not held: {line}." for line in missed] or ["Every limit is held."]
    print("\n" + "\n".join(verdict))
    return int(bool(missed))


def _percentile(values: list[float], share: int) -> float:
    """In milliseconds."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1] * 1000


def _told(plans: list[Plan]) -> str:
    parts: list[str] = []
    for plan in plans:
        if parts[-2:-1] != [plan.operation]:
            parts += [f"### {plan.operation}", ""]
        statement = re.sub(r"^SELECT .*?\nFROM", "SELECT …\nFROM", plan.statement.strip(), flags=re.DOTALL)
        parts += ["```sql", statement, "```", "", "```", plan.told, "```", ""]
    return "\n".join(parts)


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except DailiesError as error:
        sys.exit(f"error {error.code}: {error}")
