"""Assets a second from the upload to the audit entry, beside the compute limit of the same files."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from sqlalchemy import Connection, text

from bench import costs, counting, photographs, report
from cli.stack.embedded import everything, running
from cli.stack.environment import environment
from cli.stack.roles import Role
from cli.stack.signals import INTERRUPTED, interruptible
from cli.stack.state import State
from cli.stack.supervisor import Supervisor
from db.session import make_engine
from pipeline.errors import DailiesError

PROCESSES = 2
WARM_UP = 4  #: photographs taken through first, so that no process does its first one while the clock runs
POLL_S = 0.25
LIMIT_S = 1200.0
#: An idle PostgreSQL process tells its statistics after 10 s.
STATISTICS_S = 11.0

UNFINISHED = text("SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status IN"
                  " ('failed', 'cancelled')) FROM processing_jobs")  # fmt: skip
NOW = text("SELECT clock_timestamp()")
LAST = text("SELECT max(completed_at) FROM processing_jobs")


def main() -> None:
    """Measure, print a Markdown report, and write all numbers with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=int, default=100, help="photographs a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--durable", action="store_true", help="let PostgreSQL and the AWS API write to the disk"
    )
    parser.add_argument("--json", type=Path, help="write all numbers here")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("DAILIES_")]:
        del os.environ[name]
    os.environ["DAILIES_WORKER_CONCURRENCY"] = str(PROCESSES)
    with interruptible(), tempfile.TemporaryDirectory(prefix="dailies-bench-") as folder:
        _say(f"making {given.assets + WARM_UP} photographs of 12 megapixels")
        paths = photographs.make(Path(folder, "photographs"), given.assets + WARM_UP)
        rounds = []
        for number in range(given.rounds):
            stack = _through_the_stack(Path(folder, f"stack-{number}"), paths, durable=given.durable)
            limit = _at_the_limit(paths)
            rounds.append({"stack": stack, "limit": limit})
            rates = (given.assets / stack["seconds"], given.assets / limit["seconds"])
            _say(f"round {number + 1} of {given.rounds}: {rates[0]:.2f} and {rates[1]:.2f} assets a second")
        found = {
            "assets": given.assets,
            "processes": PROCESSES,
            "processors": os.cpu_count(),
            "durable": given.durable,
            "rounds": rounds,
        }
    print(report.markdown(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _through_the_stack(folder: Path, paths: list[Path], *, durable: bool) -> dict[str, Any]:
    """One round on a stack of its own: every round starts alike, and no file is a duplicate of the last."""
    state = State(folder)
    with running(state, partial(_counted, durable=durable), say=_say) as supervisor:
        env = environment(state)
        engine = make_engine(env["DAILIES_DATABASE_URL"], pool_size=1)
        try:
            with engine.connect() as plain:
                connection = plain.execution_options(isolation_level="AUTOCOMMIT")
                return _round(supervisor, connection, env, paths)
        finally:
            engine.dispose()


def _counted(state: State, *, durable: bool) -> list[Role]:
    """Every role of the stack, with the AWS API run under its counter."""
    counter = (sys.executable, "-P", str(counting.__file__))
    return [
        dataclasses.replace(role, argv=counter) if role.name == "aws" else role
        for role in everything(state, durable=durable)
    ]


def _round(
    supervisor: Supervisor, connection: Connection, env: dict[str, str], paths: list[Path]
) -> dict[str, Any]:
    aws_url, bucket = env["DAILIES_AWS_ENDPOINT_URL"], env["DAILIES_STORAGE_BUCKET"]
    s3 = boto3.client("s3", endpoint_url=aws_url)

    def take_through(files: list[Path], already: int) -> int:
        for path in files:
            s3.put_object(Bucket=bucket, Key=f"uploads/{path.name}", Body=path.read_bytes())
            supervisor.check()
        return _wait(connection, already + len(files), supervisor.check)

    take_through(paths[:WARM_UP], 0)
    time.sleep(STATISTICS_S)
    transactions = costs.transactions(connection)
    before = costs.read(supervisor, aws_url)
    started: datetime = connection.execute(NOW).scalar_one()
    polls = take_through(paths[WARM_UP:], WARM_UP)
    spent = costs.read(supervisor, aws_url).since(before)
    ended: datetime = connection.execute(LAST).scalar_one()
    time.sleep(STATISTICS_S)
    own = polls + 3  # the questions of this function, each a transaction
    return {
        "seconds": (ended - started).total_seconds(),
        "cpu_s": spent.cpu_s,
        "requests": spent.requests,
        "transactions": costs.transactions(connection) - transactions - own,
        "stages": costs.stages(connection, started),
    }


def _wait(connection: Connection, count: int, check: Callable[[], None]) -> int:
    """Wait until ``count`` jobs are completed; returns how often the database was asked."""
    limit = time.monotonic() + LIMIT_S
    polls = 0
    while True:
        check()
        polls += 1
        completed, lost = connection.execute(UNFINISHED).one()
        if completed == count:
            return polls
        if lost or time.monotonic() > limit:
            raise DailiesError(
                f"{completed} of {count} jobs completed, {lost} failed: this is no measurement."
            )
        time.sleep(POLL_S)


def _at_the_limit(paths: list[Path]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.limit", str(paths[0].parent), "--processes", str(PROCESSES)]
    done = subprocess.run(
        [*command, "--warm-up", str(WARM_UP)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except DailiesError as error:
        sys.exit(f"error {error.code}: {error}")
