"""The most telling faults, several to a stack: what of ``make faults`` every change must pass."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.case import Case, Run
from tests.faults.cases_broker import broker_wiped
from tests.faults.cases_clock import stopped_past_lease
from tests.faults.cases_deploy import rolling_restart
from tests.faults.cases_kill import MANY_CRASHES, kill_all_workers, kill_child, kill_worker
from tests.faults.cases_poison import foreign, poison
from tests.faults.cases_postgres import THROW_OUT_ALL
from tests.faults.load import Load, mixture
from tests.faults.oracle import examine, unfinished
from tests.faults.runner import once
from tests.faults.stack import Stack

ASSETS, UPLOADS_S = 30, 18.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def processes_killed(run: Run) -> None:
    with run.fault():
        kill_worker(run, "worker-1")
        kill_child(run, "worker-2")
        for role in ("listener", "steward", "api"):
            run.stack.kill(role)
        run.wait(5)
    kill_all_workers(run)


def servers_gone(run: Run) -> None:
    with run.fault():
        run.away("postgres", 3, signal.SIGQUIT)
        run.wait(3)
        run.stack.sql(THROW_OUT_ALL)
        run.away("aws", 2, signal.SIGTERM)
        run.wait(3)
    broker_wiped(run)


def restarted_among_junk(run: Run) -> None:
    with run.fault():
        foreign(run, 20)
    rolling_restart(run)


CASES = [
    Case("killed", "1", "Processes killed", processes_killed, settings=MANY_CRASHES),
    Case("gone", "2, 3", "Servers gone", servers_gone),
    Case("stopped", "5, 7", "Workers stopped past their lease, poison", stopped_past_lease, more=poison),
    Case(
        "restarted",
        "6, 7",
        "Restarts among foreign messages",
        restarted_among_junk,
        repeats=False,
        foreign=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_lost_and_nothing_done_twice(case: Case) -> None:
    result = once(replace(case, seconds=UPLOADS_S), assets=ASSETS, seed=3)

    assert result.wrong == []
    assert result.submitted == result.completed + result.failed_as_expected


TWICE = """
    INSERT INTO audit_log (audit_id, entity_type, entity_id, action)
    SELECT gen_random_uuid(), entity_type, entity_id, action FROM audit_log
    WHERE action = 'job_completed' LIMIT 1"""
FORGOTTEN = """
    UPDATE processing_queue SET status = 'queued', completed_at = NULL
    WHERE job_type = 'index' AND status = 'completed'"""
REFUSED = """
    INSERT INTO dead_letters (id, queue, reason, error_code, error_message)
    VALUES (gen_random_uuid(), 'standard', 'not_ours', 'NOT_OURS', 'It has a time limit.')"""
#: What a broken system would leave, and a word of what the oracle says of it.
BREAK = {
    "no picture": ("DELETE FROM thumbnails WHERE size_variant = 'small'", "three pictures"),
    "another picture": ("UPDATE thumbnails SET file_reference = file_reference || 'x'", "not there"),
    "two summaries": (TWICE, "exactly one summary"),
    "an effect twice": (
        "UPDATE processing_attempts SET outcome = 'completed' WHERE outcome = 'failed'",
        "completed attempts",
    ),
    "no dead letter": ("DELETE FROM dead_letters", "dead letter"),
    "a message of ours refused": (REFUSED, "nobody foreign"),
    "a forgotten row": (FORGOTTEN, "its rows say"),
    "a lost job": ("DELETE FROM processing_jobs WHERE status = 'completed'", "lost"),
}


def test_oracle_sees_what_is_broken(tmp_path: Path) -> None:
    uploads = mixture(
        12,
        random.Random(5),  # noqa: S311
        broken=0.2,
        slow=0,
        long=False,
    )
    with Stack(tmp_path, roles=("listener", "steward", "worker-1")) as stack:
        with Load(stack, uploads, rate=10):
            stack.until(lambda: unfinished(stack, uploads) == 0, seconds=100)
        assert examine(stack, uploads).wrong == []

        stack.sql("SET session_replication_role = replica")  # no trigger, no foreign key objects
        for sql, told in BREAK.values():
            assert told not in " ".join(examine(stack, uploads).wrong)
            stack.sql(sql)
            assert told in " ".join(examine(stack, uploads).wrong)
