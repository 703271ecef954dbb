"""Part 6: restarts on purpose, also from one release to the next, and a migration, all under load."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import psycopg

from cli.stack.roles import Role
from tests.faults.case import Run, case
from tests.faults.stack import PARTS, ROOT, Stack

PACKAGES = ("pipeline", "db", "tasks", "api", "cli", "migrations", "tests")
OLD_SCHEMA, NEW_SCHEMA = "\nSCHEMA = 1\n", "\nSCHEMA = 2\n"
STOP_LIMIT_S = 15.0
BACKFILL = 50  #: rows a batch
ADD_COLUMN = "SET lock_timeout = '2s'; ALTER TABLE processing_queue ADD COLUMN faults_note text"
FILL = """
    UPDATE processing_queue SET faults_note = 'filled' WHERE id IN (
    SELECT id FROM processing_queue WHERE faults_note IS NULL LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id"""


def restart(run: Run, role: str) -> None:
    """SIGTERM one role, and wait until it is there again: one step of a rolling restart."""
    old = run.stack.kill(role, signal.SIGTERM)
    run.until(lambda: run.stack.status(role) == "restarting", seconds=STOP_LIMIT_S)
    line = next(text for text in reversed(run.stack.said) if f"(pid {old})" in text)
    if "status 0" not in line:
        run.note(f"{role} did not exit with 0: {line.split(';')[0]}")
    run.stack.wait_running(role)


@case(
    "rolling-restart", part="6", title="Every role restarted by SIGTERM, one after the other", repeats=False
)
def rolling_restart(run: Run) -> None:
    with run.fault():
        for role in PARTS:
            restart(run, role)


@case(
    "two-releases",
    part="6",
    title="A rolling restart to a release with another message schema",
    repeats=False,
)
def two_releases(run: Run) -> None:
    """First the senders, then the workers: old workers meet new messages, new workers old ones."""
    newer = next_release(run.stack)

    def change(role: Role) -> Role:
        return replace(role, env={**role.env, "PYTHONPATH": str(newer)})

    with run.fault():
        for role in PARTS:
            run.stack.change(role, change)
            restart(run, role)
            run.wait(2)


def next_release(stack: Stack) -> Path:
    """A copy of this release that differs by the version of what its messages say."""
    copy = stack.folder / "next-release"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    dispatch = copy / "tasks" / "dispatch.py"
    source = dispatch.read_text(encoding="utf-8")
    assert OLD_SCHEMA in source
    dispatch.write_text(source.replace(OLD_SCHEMA, NEW_SCHEMA), encoding="utf-8")
    return copy


@case("migration", part="6", title="A column added to the queue's table and filled in batches, three times")
def migration(run: Run) -> None:
    url = run.stack.env["DAILIES_DATABASE_URL"]
    with run.fault(), psycopg.connect(url, autocommit=True, application_name="migration") as connection:
        for _ in range(3):
            _until_it_has_the_lock(run, connection, ADD_COLUMN)
            filled = 0
            while batch := connection.execute(FILL, [BACKFILL]).rowcount:
                filled += batch
                run.wait(0.05)
            run.note(f"{filled} rows filled")
            _until_it_has_the_lock(run, connection, "ALTER TABLE processing_queue DROP COLUMN faults_note")


def _until_it_has_the_lock(run: Run, connection: psycopg.Connection, statement: str) -> None:
    """As a careful migration does: give up soon, so that nobody queues behind it, and try again."""
    while True:
        try:
            connection.execute(statement.encode())
        except psycopg.errors.LockNotAvailable:
            run.wait(0.5)
        else:
            return
