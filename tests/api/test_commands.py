"""The ``dailies`` commands that look and change, against an API that answers over HTTP."""

from __future__ import annotations

import getpass
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import factories
import pytest
import uvicorn
from click.testing import Result
from sqlalchemy import insert
from test_control import entries, failed
from test_dlq import foreign, letter_of
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from api.app import create_app
from cli.main import app
from cli.orders import moment, progress
from db.models import DeadLetter, MediaItem, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.errors import DailiesError
from pipeline.settings import Settings
from tests.e2e.stacks import DAILIES
from tests.support import new_job

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def address(aws: Settings, database: str) -> Iterator[str]:
    """The URL of an API on a free port."""
    server = uvicorn.Server(uvicorn.Config(create_app(aws), port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < limit
        time.sleep(0.02)
    (socket,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def run(address: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; what it raises on purpose is in the result."""
    monkeypatch.setenv("DAILIES_API_URL", address)

    def invoke(*words: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=answer, env={"COLUMNS": "200"})

    return invoke


def json_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_job_is_cancelled_moved_and_retried_by_the_user_of_the_machine(run: Run, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = new_job(session).id
    assert json_of(run("priority", str(job_id), "9", "--json"))["priority"] == 9
    cancelled = json_of(run("cancel", str(job_id), "--reason", "wrong cut", "--json"))
    assert (cancelled["status"], cancelled["error_code"]) == ("cancelled", "CANCELLED")
    assert cancelled["error_message"] == f"{getpass.getuser()} cancelled it: wrong cut"
    assert json_of(run("retry", str(job_id), "--from", "ingest", "--json"))["status"] == "queued"
    assert entries(sessions, "job_cancelled") == [(job_id, getpass.getuser(), "wrong cut")]
    assert "metadata" in run("cancel", str(job_id)).output


def test_error_of_the_api_is_the_commands(run: Run) -> None:
    result = run("cancel", str(uuid4()))
    assert isinstance(result.exception, DailiesError)
    assert result.exception.code == "NOT_FOUND"


def test_many_jobs_are_retried_after_a_question(run: Run, sessions: Sessions) -> None:
    made = [failed(sessions) for _ in range(3)]

    def queued() -> int:
        with sessions() as session:
            return sum(session.get_one(ProcessingJob, each).status == "queued" for each in made)

    dry = json_of(run("retry", "--status", "failed", "--dry-run", "--json"))
    assert [UUID(each["job_id"]) for each in dry] == made
    refused = run("retry", "--status", "failed", answer="n\n")
    assert "Start 3 jobs again?" in refused.output
    assert (refused.exit_code, queued()) == (1, 0)
    done = run("retry", "--status", "failed", "--since", "1h", "--yes")
    assert done.exit_code == 0, done.output
    assert "3 started again, 0 refused" in done.output
    assert queued() == 3
    assert "There is none." in run("retry", "--error-code", "OTHER").output


@pytest.mark.parametrize("left", [10_000, 10_001])
def test_question_tells_no_more_than_was_counted(run: Run, sessions: Sessions, left: int) -> None:
    failed(sessions)
    items = [{"id": uuid7(), "bucket": "storage", "key": str(number)} for number in range(left)]
    letters = {"reason": "not_ours", "error_code": "OTHER", "error_message": "It is nothing."}
    job = {"workflow_type": "ingest", "status": "failed", "completed_at": factories.now()}
    with sessions.begin() as session:
        session.execute(insert(MediaItem), items)
        session.execute(insert(ProcessingJob), [{"media_item_id": item["id"], **job} for item in items])
        session.execute(insert(DeadLetter), [letters] * (left + 1))
    exactly = "more than 10,000" if left > 10_000 else "10001"
    asked = run("retry", "--status", "failed", answer="n\n")
    assert f"Start {exactly} jobs again?" in asked.output
    asked = run("dlq", "redrive", "--error-code", "OTHER", answer="n\n")
    assert f"Redrive {exactly} dead letters?" in asked.output


@pytest.mark.parametrize(
    "words",
    [
        ("retry",),
        ("retry", "one", "--status", "failed"),
        ("dlq", "redrive"),
        ("dlq", "redrive", "one", "--stage", "ingest"),
        ("dlq", "purge"),
        ("dlq", "list", "--since", "yesterday"),
        ("priority", "one", "11"),
    ],
)
def test_command_that_makes_no_sense_is_refused(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


def test_letters_are_listed_shown_redriven_and_purged(run: Run, sessions: Sessions) -> None:
    job_id = failed(sessions, key="uploads/lake.jpg")
    letter_id, strange = letter_of(sessions, job_id), foreign(sessions, "standard", "hello [b]")
    assert [each["id"] for each in json_of(run("dlq", "list", "--json"))] == [strange, letter_id]
    assert "uploads/lake.jpg" in run("dlq", "list", "--error-code", "TRUNCATED_IMAGE").output
    assert "TRUNCATED_IMAGE" in run("dlq", "list", "--group").output
    assert "hello [b]" in run("dlq", "show", strange).output
    refused = run("dlq", "redrive", strange)
    assert refused.exit_code == 1
    assert "FOREIGN_MESSAGE" in refused.output
    redriven = json_of(run("dlq", "redrive", "--stage", "metadata", "--yes", "--reason", "fixed", "--json"))
    assert [each["dead_letter_id"] for each in redriven] == [letter_id]
    assert entries(sessions, "dead_letter_redriven")[0][1:] == (getpass.getuser(), "fixed")
    assert "Purge 1 dead letters?" in run("dlq", "purge", "--error-code", "NOT_OURS", answer="n\n").output
    purged = run("dlq", "purge", "--error-code", "NOT_OURS", "--yes")
    assert purged.exit_code == 0, purged.output
    assert json_of(run("dlq", "list", "--json")) == []
    assert [each["id"] for each in json_of(run("dlq", "list", "--which", "purged", "--json"))] == [strange]


def test_purge_goes_on_past_a_letter_that_somebody_else_has_resolved(run: Run, sessions: Sessions) -> None:
    _, middle, _ = (foreign(sessions, source) for source in ("standard", "events", "standard"))
    command, pipe = [*DAILIES, "dlq", "purge", "--error-code", "NOT_OURS"], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as purge:  # noqa: S603
        assert purge.stdout is not None
        asked = ""
        while "?" not in asked:
            asked += purge.stdout.read(1) or "? It has ended."
        assert run("dlq", "redrive", middle).exit_code == 0
        told, _ = purge.communicate("y\n", timeout=60)
    assert asked == "Purge 3 dead letters?"
    assert "2 purged" in told
    assert "1 left alone" in told
    assert purge.returncode == 1
    assert [each["id"] for each in json_of(run("dlq", "list", "--which", "redriven", "--json"))] == [middle]
    assert len(json_of(run("dlq", "list", "--which", "purged", "--json"))) == 2


def test_purge_of_a_letter_that_is_not_there_is_an_error(run: Run, sessions: Sessions) -> None:
    result = run("dlq", "purge", str(uuid4()), "--yes")
    assert isinstance(result.exception, DailiesError)
    assert result.exception.code == "NOT_FOUND"


def test_groups_of_letters_are_those_of_the_filters(run: Run, sessions: Sessions) -> None:
    with sessions.begin() as session:
        for stage, code in (("metadata", "ONE"), ("metadata", "TWO"), ("metadata", "TWO"), ("ingest", "ONE")):
            factories.add_dead_letter(session, job_type=stage, error_code=code)

    def groups(*words: str) -> list[tuple[str, str, int]]:
        told = json_of(run("dlq", "list", "--group", "--json", *words))
        return [(each["stage"], each["error_code"], each["count"]) for each in told]

    assert len(groups()) == 3
    assert groups("--stage", "metadata") == [("metadata", "TWO", 2), ("metadata", "ONE", 1)]
    assert groups("--stage", "metadata", "--limit", "1") == [("metadata", "TWO", 2)]
    assert groups("--error-code", "ONE", "--stage", "ingest") == [("ingest", "ONE", 1)]


def test_lane_is_paused_seen_and_resumed(run: Run, sessions: Sessions) -> None:
    with sessions.begin() as session:
        new_job(session, priority=1)
    assert "bulk is paused" in run("pause", "bulk", "--reason", "disk swap").output
    assert "was paused already" in run("pause", "bulk").output
    told = run("queues").output
    assert f"by {getpass.getuser()}" in told
    assert "disk swap" in told
    assert "1 messages sent" in run("resume", "bulk").output
    assert "was not paused" in run("resume", "bulk").output


def test_workers_are_shown_with_what_they_hold(run: Run, sessions: Sessions) -> None:
    with sessions.begin() as session:
        factories.add_worker(session, "one")
        factories.add_worker(session, "ended", state="stopped")
        job = factories.add_job(
            session,
            factories.add_item(session),
            [factories.TaskStatus.PROCESSING],
            rows={0: {"worker": "one:1/12"}},
        )
    (worker,) = json_of(run("workers", "--json"))
    assert [row["job_id"] for row in worker["rows"]] == [str(job.id)]
    assert "ingest" in run("workers").output
    assert len(json_of(run("workers", "--all", "--json"))) == 2


def test_jobs_are_listed_by_key_and_error(run: Run, sessions: Sessions) -> None:
    job_id = failed(sessions, key="uploads/day 1/a.jpg")
    failed(sessions)
    listed = json_of(run("jobs", "--key", "uploads/day 1/", "--error-code", "TRUNCATED_IMAGE", "--json"))
    assert [job["id"] for job in listed] == [str(job_id)]


def test_reconcile_exits_by_what_it_finds(run: Run, empty_queues: Settings, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        row = session.get_one(QueueRow, job.rows[0].id)
        row.available_at = factories.now() - timedelta(hours=1)
    found = run("reconcile", "--json")
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert {each["kind"]: each["count"] for each in told["findings"]}["unpublished"] == 1
    assert "disagree" in run("reconcile").output
    fixed = run("reconcile", "--fix", "--reason", "a test", "--json")
    assert fixed.exit_code == 0, fixed.output
    kinds = {each["kind"] for each in json.loads(fixed.stdout)["drift"]["findings"]}
    assert "unpublished" not in kinds
    assert len(entries(sessions, "reconciled")) == 1


def test_reconcile_says_that_leases_wait_for_a_steward(
    run: Run, empty_queues: Settings, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        job = factories.add_job(session, factories.add_item(session), [factories.TaskStatus.PROCESSING])
        row = session.get_one(QueueRow, job.rows[0].id)
        row.lease_expires_at = factories.now() - timedelta(hours=1)
    fixed = run("reconcile", "--fix")
    assert fixed.exit_code == 1
    assert "No steward has watched" in " ".join(fixed.output.split())


def test_queues_say_what_is_not_ready(run: Run, empty_queues: Settings, sessions: Sessions) -> None:
    told = " ".join(run("queues").output.split())
    assert "Not ready: steward: No steward has ever been heard of" in told


def test_progress_tells_no_more_than_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    for left, more in ((0, False), (3, False), (10_000, False), (10_000, True)):
        progress({"remaining": left, "remaining_more": more})
    assert capsys.readouterr().out.splitlines() == [
        "3 are left ...", "10000 are left ...", "More than 10,000 are left ...",
    ]  # fmt: skip


def test_moments_are_ages_or_times() -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    told = moment("1h")
    assert told is not None
    assert abs(datetime.fromisoformat(told) - hour_ago) < timedelta(minutes=1)
    assert moment("2026-11-21 10:00") == "2026-11-21T10:00:00+00:00"
    assert moment("2026-11-21T10:00+01:00") == "2026-11-21T10:00:00+01:00"
    assert moment(None) is None
