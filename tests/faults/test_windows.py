"""For every window between two steps of the protocol: whoever takes the step is killed exactly there.

API, listener, steward and a worker with one pool process speak with the servers through proxies. What a file
causes on the wire is recorded once; then each step is cut once just before the server sees it, and once
when the server has done it and the client does not know. The oracle must find nothing wrong after either.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from db import queue
from db.session import make_engine, session_factory
from pipeline.queues import LANES, Queue
from pipeline.states import JobStatus
from tests.faults import oracle
from tests.faults.case import Arrangement, Servers
from tests.faults.load import Asked, Load, Upload, picture
from tests.faults.pgproxy import PgProxy
from tests.faults.proxy import AwsProxy
from tests.faults.rules import Refuse
from tests.faults.stack import Stack
from tests.faults.steps import Trap, Window, role_by

API, LISTENER, STEWARD, WORKER = ROLES = ("api", "listener", "steward", "worker-2")
SETTINGS = {
    "DAILIES_LEASE": "4",
    "DAILIES_VISIBILITY_TIMEOUT": "3",
    "DAILIES_STEWARD_INTERVAL": "0.5",
    "DAILIES_LOST_AFTER": "1",
    "DAILIES_POLL_WAIT": "1",
    "DAILIES_RETRY_BASE": "1",
    "DAILIES_RETRY_CAP": "1",
    "DAILIES_BUCKET_SCAN_EVERY": "3600",  # no listing may mend what these find
}
LIMIT_S = 60.0
TRIES = 5  #: the steward may come first, and take a step that is another's otherwise
COUNTS = {f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")}
UNCOPIED = "SELECT count(*) FROM dead_letters WHERE dead_lettered_at IS NULL"

RECEIVE = ("after-receive",)  # before it, nobody has anything


def both(*steps: str) -> tuple[str, ...]:
    return tuple(f"{moment}-{step}" for step in steps for moment in ("before", "after"))


def windows(role: str, names: tuple[str, ...]) -> list[Window]:
    split = (name.partition("-") for name in names)
    return [Window(role, "before" if moment == "before" else "after", step) for moment, _, step in split]


#: What an upload that succeeds takes. Later stages take the steps of the first, but for the job's end.
PLAIN = [
    *windows(LISTENER, (*RECEIVE, *both("commit-event", "commit-mark", "send", "delete"))),
    *windows(WORKER, (*RECEIVE, *both("commit-claim", "get", "commit-attempt-end", "commit-mark", "send"))),
    *windows(WORKER, both("delete", "put", "commit-job-end")),
]
#: What a stage takes that fails for good, and one that is tried again, besides the above.
FAILING = windows(WORKER, both("commit-dead-letter", "send-copy"))
RETRYING = windows(WORKER, both("commit-attempt-end", "commit-mark", "send"))
#: What a row takes whose lease has ended.
RELEASING = windows(STEWARD, both("commit-attempt-end", "commit-mark", "send"))
#: What a request takes that starts work.
ASKING = windows(API, both("commit-job", "commit-mark", "send"))


class World:
    """The stack, its trap, and everything that went through it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.trap: Trap = stack.tools["trap"]
        self.aws: AwsProxy = stack.tools["aws"]
        self.dice = random.Random(3)  # noqa: S311 - repeatable, guards nothing
        self.uploads: list[Upload] = []
        self.asked: dict[UUID, int] = {}
        self.settled = True  #: nothing is under way, and nothing was found wrong
        self.dead_letter_url = stack.queue_url(Queue.DEAD_LETTER)
        self.queue_urls = [stack.queue_url(lane) for lane in LANES]

    def processes(self) -> dict[int, str]:
        """The roles by their processes, of those that are up."""
        members = ((role, self.stack._members[role].process) for role in ROLES)
        return {process.pid: role for role, process in members if process is not None}

    def upload(self, *, body: bytes | None = None, code: str | None = None) -> Upload:
        status = JobStatus.FAILED if code else JobStatus.COMPLETED
        made = Upload(
            f"uploads/{uuid4()}.jpg", body or picture(self.dice), status, frozenset({code} if code else ())
        )
        bucket = self.stack.env["DAILIES_STORAGE_BUCKET"]
        self.uploads.append(made)
        self.stack.s3.put_object(Bucket=bucket, Key=made.key, Body=made.body)
        return made

    def strand(self) -> None:
        """A job whose first row is held by a worker that is no more."""
        item = self._known_item()
        engine = make_engine(self.stack.env["DAILIES_DATABASE_URL"], pool_size=1)
        with session_factory(engine).begin() as session:
            job = queue.enqueue(session, media_item_id=item, workflow="reindex")
            row = queue.due_row(session, job.id)
            assert row is not None
            queue.claim(session, row, worker="gone:1/2", lease=timedelta(seconds=0.1))
        engine.dispose()
        self.asked[item] = self.asked.get(item, 0) + 1

    def ask(self) -> None:
        """A job by HTTP, asked for until there is an answer."""
        item = self._known_item()
        self.asked[item] = self.asked.get(item, 0) + Load(self.stack, [], 1).ask(item, 5)

    def _known_item(self) -> UUID:
        found: UUID = self.stack.sql(
            "SELECT i.id FROM media_items i JOIN processing_jobs j ON j.media_item_id = i.id"
            " WHERE j.status = 'completed' ORDER BY i.created_at LIMIT 1"
        )[0][0]
        return found

    def settle(self) -> None:
        """Wait until everything has ended and nothing is under way; the oracle then finds nothing wrong."""
        self.stack.until(self._is_over, seconds=LIMIT_S)
        asked = [Asked(item, tries) for item, tries in self.asked.items()]
        found = oracle.examine(self.stack, self.uploads, asked)
        assert not found.wrong
        letters: int = self.stack.sql("SELECT count(*) FROM dead_letters")[0][0]
        assert self._messages(self.dead_letter_url) >= letters
        assert found.completed + found.failed_as_expected == found.submitted
        self.settled = True

    def _is_over(self) -> bool:
        for role in ROLES:  # the supervisor waits longer each time, which is not what is tried here
            self.stack._members[role].restart_at = 0.0
        if oracle.unfinished(self.stack, self.uploads) or self.stack.sql(UNCOPIED)[0][0]:
            return False
        return all(self._messages(url) == 0 for url in self.queue_urls)

    def _messages(self, url: str) -> int:
        found = self.stack.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return sum(int(count) for name, count in found.items() if name in COUNTS)

    def run(self, window: Window, cause: str) -> None:
        """Cause what takes the step, kill who takes it, and see that nothing comes of it."""
        self.trap.arm(window)
        for _ in range(TRIES):
            self.cause(cause)
            self.stack.until(lambda: self.trap.killed or self._is_over(), seconds=LIMIT_S)
            if self.trap.killed:
                break
        assert self.trap.killed, "nobody has taken this step"
        self.settle()

    def cause(self, what: str) -> None:
        self.settled = False
        if what == "failure":
            self.upload(body=b"\0no type " + uuid4().bytes, code="UNSUPPORTED_TYPE")
        elif what == "release":
            self.strand()
        elif what == "request":
            self.ask()
        elif what == "retry":
            refused = self.aws.rule(Refuse(403, "AccessDenied"), "S3.GetObject", count=1)
            self.upload()
            self.stack.until(lambda: refused.hits, seconds=LIMIT_S)
        else:
            self.upload()

    def recorded(self, cause: str, *roles: str) -> set[tuple[str, str]]:
        """The steps that these roles take, with what they were caused by."""
        self.trap.heard, self.trap.hears = [], True
        self.cause(cause)
        self.settle()
        self.trap.hears = False
        return {(role, step) for role, step in self.trap.heard if role in roles}


@contextmanager
def trapped(servers: Servers) -> Iterator[Arrangement]:
    """Both proxies, and the trap that hears them."""
    with ExitStack() as held:
        aws = held.enter_context(AwsProxy(servers.aws_url))
        pg = held.enter_context(PgProxy(servers.database_url))
        trap = Trap(servers.env["DAILIES_QUEUE_PREFIX"], lambda _: None)
        aws.hook, pg.hook = trap.on_call, trap.on_commit
        env = {"DAILIES_AWS_ENDPOINT_URL": aws.url, "DAILIES_DATABASE_URL": pg.url}
        yield Arrangement(env={"*": env}, tools={"aws": aws, "trap": trap})


class Worlds:
    """One world for all windows, and another one after a window that has left something undone."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._world: World | None = None

    def get(self) -> World:
        if self._world is None or not self._world.settled:
            self.close()
            folder = self._held.enter_context(tempfile.TemporaryDirectory(prefix="dailies-windows-"))
            stack = Stack(Path(folder), arrange=trapped, settings=SETTINGS, roles=ROLES)
            self._world = World(self._held.enter_context(stack))
            self._world.trap.role_of = role_by(self._world.processes)
            self._world.upload()
            self._world.settle()
        return self._world

    def close(self) -> None:
        self._held.close()


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    made = Worlds()
    yield made
    made.close()


@pytest.fixture
def world(worlds: Worlds) -> World:
    return worlds.get()


def taken(windows: list[Window]) -> set[tuple[str, str]]:
    return {(window.role, window.step) for window in windows}


def test_every_step_that_is_heard_has_its_windows(world: World) -> None:
    # No more: the steward may be faster with a send. That each step is taken, the tests below see.
    plain = taken(PLAIN)
    assert world.recorded("success", LISTENER, WORKER) <= plain
    assert world.recorded("failure", LISTENER, WORKER) <= plain | taken(FAILING)
    assert world.recorded("retry", LISTENER, WORKER) <= plain
    assert world.recorded("release", STEWARD) <= taken(RELEASING)
    assert world.recorded("request", API) <= taken(ASKING)


@pytest.mark.parametrize("window", PLAIN, ids=str)
def test_killed_on_the_way_to_success(world: World, window: Window) -> None:
    world.run(window, "success")


@pytest.mark.parametrize("window", FAILING, ids=str)
def test_killed_on_the_way_to_failure(world: World, window: Window) -> None:
    world.run(window, "failure")


@pytest.mark.parametrize("window", RETRYING, ids=str)
def test_killed_on_the_way_to_a_retry(world: World, window: Window) -> None:
    world.run(window, "retry")


@pytest.mark.parametrize("window", RELEASING, ids=str)
def test_killed_while_a_row_is_released(world: World, window: Window) -> None:
    world.run(window, "release")


@pytest.mark.parametrize("window", ASKING, ids=str)
def test_killed_in_the_middle_of_a_request(world: World, window: Window) -> None:
    world.run(window, "request")
