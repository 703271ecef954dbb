"""Part 2: PostgreSQL goes away, throws sessions out, has no slot and no disk left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg

from tests.faults.case import NotRun, Run, case
from tests.faults.stack import Stack

DOWN_S = 8.0
SLOTS_TAKEN_S = 10.0
DISK, DISK_MB = "pgdisk", 400
BALLAST = "ballast"
THROW_OUT_ONE = """
    SELECT pg_terminate_backend(pid) FROM (
    SELECT pid FROM pg_stat_activity WHERE application_name = 'dailies' ORDER BY random() LIMIT 1) one"""
THROW_OUT_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dailies'"


@case("postgres-restart", part="2", title="PostgreSQL shut down at once (SIGQUIT), back after 8 s, twice")
def postgres_restart(run: Run) -> None:
    with run.fault():
        for _ in range(2):
            run.away("postgres", DOWN_S, signal.SIGQUIT)
            run.wait(3)


@case("terminate-backends", part="2", title="pg_terminate_backend of a random session, three times a second")
def terminate_backends(run: Run) -> None:
    ended = 0
    with run.fault():
        for _ in range(45):
            ended += len(run.stack.sql(THROW_OUT_ONE))
            run.wait(0.33)
    run.note(f"{ended} sessions ended")


@case("no-slots", part="2", title="Every connection slot taken for 10 s, sessions of Dailies thrown out")
def no_slots(run: Run) -> None:
    url = run.stack.env["DAILIES_DATABASE_URL"]
    run.stack.sql("SELECT 1")  # our own session stays
    with run.fault(), ExitStack() as taken:
        end = time.monotonic() + SLOTS_TAKEN_S
        while time.monotonic() < end:
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(psycopg.connect(url, application_name="hog", connect_timeout=3))
            run.stack.sql(THROW_OUT_ALL)
            run.wait(0.2)


def on_a_small_disk(stack: Stack) -> None:
    """Move the new database onto a small file system in memory."""
    disk, data = stack.state.root / DISK, stack.state.root / "postgres"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0711", "tmpfs", str(disk)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:  # noqa: S603
        reason = "mounting a tmpfs is not permitted here"
        raise NotRun(reason)
    stack.on_end(lambda: subprocess.run(["umount", "--lazy", str(disk)], check=True))  # noqa: S603, S607
    subprocess.run(["cp", "-a", str(data), str(disk)], check=True)  # noqa: S603, S607
    shutil.rmtree(data)
    data.symlink_to(disk / data.name)


@case("disk-full", part="2", title="The database's disk full for 10 s", prepare=on_a_small_disk)
def disk_full(run: Run) -> None:
    ballast = run.stack.state.root / DISK / BALLAST
    with run.fault():
        _fill(ballast)
        # A checkpoint and new segments of the log have to be written sooner or later: make it sooner.
        with suppress(psycopg.Error):
            run.stack.sql("SELECT pg_switch_wal()", retry=False)
            run.stack.sql("CHECKPOINT", retry=False)
        run.wait(10)
        ballast.unlink()
    down = sum("postgres (" in line for line in run.stack.said)
    run.note(f"PostgreSQL ended {down} times")


def _fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass
