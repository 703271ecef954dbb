"""A stack as ``dailies up`` has it, that can be hurt: real processes under the product's own supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import boto3
import psycopg
from botocore.config import Config

from cli.stack import aws, postgres
from cli.stack.embedded import end_leftovers
from cli.stack.environment import environment, isolated
from cli.stack.roles import Role
from cli.stack.state import State
from cli.stack.supervisor import Member, Supervisor
from tests.faults.case import Arrange, Arrangement, NotRun, Servers, as_it_is

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

ROOT = Path(__file__).resolve().parents[2]
CHECK_S, LOOK_S = 0.1, 0.05
LANES = "express,standard,bulk"
#: Every part but Flower, and a second worker instead of the one for heavy stages: nobody has heavy ones yet.
PARTS = ("api", "listener", "steward", "worker-1", "worker-2")
CONCURRENCY = {"worker-1": 2, "worker-2": 1}
#: What would make a case wait is shortened; the report names these.
SHORTENED = {
    "DAILIES_LEASE": "6",
    "DAILIES_VISIBILITY_TIMEOUT": "6",
    "DAILIES_STEWARD_INTERVAL": "1",
    "DAILIES_LOST_AFTER": "4",
    "DAILIES_POLL_WAIT": "2",
    "DAILIES_RETRY_BASE": "1",
    "DAILIES_RETRY_CAP": "10",
    "DAILIES_SHUTDOWN_GRACE": "5",
    "DAILIES_SOFT_TIME_LIMIT": "30",
    "DAILIES_HARD_TIME_LIMIT": "33",
    "DAILIES_BUCKET_SCAN_EVERY": "20",
    "DAILIES_ORPHAN_AGE": "60",
}
#: Of the caller's environment: what would lead the processes elsewhere, or slow them down.
FOREIGN = ("DAILIES_", "COV", "PYTEST_", "PYTHONPATH")


class Stack:
    """The processes, from outside. One thread starts and watches all of them: they end when it does."""

    def __init__(
        self,
        folder: Path,
        *,
        arrange: Arrange = as_it_is,
        settings: Mapping[str, str] | None = None,
        roles: Sequence[str] = PARTS,
        prepare: Callable[[Stack], None] | None = None,
    ) -> None:
        self.folder = folder
        self.state = State(folder / "var")
        self.counter = folder / "executions.log"  #: what the workers' stages append to
        self.said: list[str] = []  #: what the supervisor has told
        self.env: Mapping[str, str] = {}  #: of every part, before what the case arranged
        self.tools: Mapping[str, Any] = {}
        self._arrange, self._parts, self._prepare = arrange, roles, prepare
        self._settings = {**SHORTENED, **(settings or {})}
        #: What ``prepare`` has to undo, after the processes have ended.
        self.on_end: Callable[[Callable[[], object]], object] = lambda _: None
        self._members: dict[str, Member] = {}
        self._held: set[str] = set()
        self._bootstrapped = False
        self._up, self._end = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="supervisor")
        self._sql_lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._up.wait()
            self.check()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._connection is not None:
            self._connection.close()

    # What the thread does that owns the processes

    def _live(self) -> None:
        try:
            with ExitStack() as held:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.folder.chmod(0o711)  # PostgreSQL's user passes through
                self.state.create()
                held.enter_context(self.state.lock())
                end_leftovers(self.state)
                self.state.choose_ports()
                supervisor = Supervisor(
                    self._roles(held),
                    logs=self.state.logs,
                    say=self.said.append,
                    save=lambda _: None,
                    parts_grace=10,
                )
                self._members = {member.role.name: member for member in supervisor.members}
                self.on_end = held.callback
                if self._prepare is not None:
                    self._prepare(self)
                held.callback(self._stop, supervisor)
                supervisor.start()
                self._up.set()
                while not self._end.wait(CHECK_S):
                    self._look(supervisor)
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits
            self._error = error
        finally:
            self._up.set()

    def _look(self, supervisor: Supervisor) -> None:
        supervisor.check()
        for name in self._held:
            if self._members[name].status == "restarting":
                self._members[name].restart_at = float("inf")

    def _stop(self, supervisor: Supervisor) -> None:
        for member in supervisor.members:  # who was stopped cannot end
            with suppress(OSError):
                if member.process is not None:
                    os.killpg(member.process.pid, signal.SIGCONT)
        supervisor.stop()

    def _roles(self, held: ExitStack) -> list[Role]:
        own = environment(self.state)
        kept = {name: value for name, value in isolated(own).items() if name in own or not _foreign(name)}
        more = {
            "PYTHONPATH": str(ROOT),
            "FAULTS_COUNTER": str(self.counter),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.env = {**kept, "AWS_EC2_METADATA_DISABLED": "true", **more, **self._settings}
        servers = Servers(own["DAILIES_DATABASE_URL"], own["DAILIES_AWS_ENDPOINT_URL"], self.env)
        arranged: Arrangement = held.enter_context(self._arrange(servers))
        self.tools = arranged.tools
        return [
            postgres.role(self.state, durable=True, on_ready=lambda: None),
            aws.role(self.state, durable=True, on_ready=self._bootstrap),
            *(self._part(name, arranged) for name in self._parts),
        ]

    def _part(self, name: str, arranged: Arrangement) -> Role:
        env = {**self.env, **arranged.env.get("*", {}), **arranged.env.get(name, {})}
        if not name.startswith("worker"):
            port = self.state.ports()["api"]
            ready = (lambda: aws.answers(port, "/health")) if name == "api" else (lambda: True)
            return Role(name, [sys.executable, "-P", "-m", "cli.main", name], env, ready=ready)
        options = ["--queues", LANES, "--hostname", f"{name}@%h", "--concurrency", str(CONCURRENCY[name])]
        return Role(name, [sys.executable, "-P", "-m", "tests.faults.worker", "worker", *options], env)

    def _bootstrap(self) -> None:
        """Once. What a server has forgotten is for the steward to make again."""
        if not self._bootstrapped:
            for part in ("migrate", "bootstrap"):
                self.dailies(part)
        self._bootstrapped = True

    # What a case may do

    def check(self) -> None:
        """Raise what ended the supervisor's thread, if something did."""
        if isinstance(self._error, NotRun):
            raise self._error
        if self._error is not None:
            raise RuntimeError("the stack has failed") from self._error

    def until(self, condition: Callable[[], object], *, seconds: float = 60) -> None:
        """Return as soon as ``condition`` holds; fail when it never does."""
        end = time.monotonic() + seconds
        while not condition():
            self.check()
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(LOOK_S)

    def dailies(self, *args: str) -> str:
        """Run a ``dailies`` command on this stack to its end; returns what it prints."""
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-m", "cli.main", *args],
            env=dict(self.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pid(self, role: str) -> int:
        """The process that plays the role now, waited for if it is down."""
        self.until(lambda: self._members[role].process is not None, seconds=60)
        process = self._members[role].process
        return process.pid if process else self.pid(role)

    def status(self, role: str) -> str:
        """What the supervisor says of the role: starting, running, restarting."""
        return self._members[role].status

    def children(self, role: str) -> list[int]:
        """The processes that the role's process has started: a worker's pool."""
        return children_of(self.pid(role))

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the role's process; returns its pid."""
        pid = self.pid(role)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid

    def hold(self, role: str, number: signal.Signals = signal.SIGKILL, *, seconds: float = 30) -> None:
        """End the role's process and keep it down until it is released."""
        self._held.add(role)
        if self._members[role].process is not None:
            self.kill(role, number)
        self.until(lambda: self.status(role) == "restarting", seconds=seconds)

    def release(self, role: str) -> None:
        """Start what was held, and wait until it is ready."""
        self._held.discard(role)
        self._members[role].restart_at = 0.0
        self.wait_running(role)

    def wait_running(self, role: str, *, seconds: float = 90) -> None:
        """Wait until the role's process is ready."""
        self.until(lambda: self.status(role) == "running", seconds=seconds)

    def change(self, role: str, new: Callable[[Role], Role]) -> None:
        """What the role is from its next start on."""
        self._members[role].role = new(self._members[role].role)

    def sql(
        self, query: str, parameters: Sequence[object] = (), *, retry: bool = True
    ) -> list[tuple[Any, ...]]:
        """Ask the server itself; while it is away, ask again for a minute if ``retry``."""
        end = time.monotonic() + 60
        while True:
            try:
                with self._sql_lock:
                    return self._ask(query, parameters)
            except psycopg.OperationalError:
                if not retry or time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _ask(self, query: str, parameters: Sequence[object]) -> list[Any]:
        if self._connection is None or self._connection.closed:
            url = self.env["DAILIES_DATABASE_URL"]
            self._connection = psycopg.connect(
                url, autocommit=True, connect_timeout=5, application_name="faults", prepare_threshold=None
            )
        try:
            cursor = self._connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            self._connection.close()
            raise

    @cached_property
    def s3(self) -> S3Client:
        """The object store, without retries: who calls decides."""
        client: S3Client = self._client("s3")
        return client

    @cached_property
    def sqs(self) -> SQSClient:
        """The broker, without retries."""
        client: SQSClient = self._client("sqs")
        return client

    def queue_url(self, name: str) -> str:
        """The URL of a queue by its short name."""
        return self.sqs.get_queue_url(QueueName=self.env["DAILIES_QUEUE_PREFIX"] + name)["QueueUrl"]

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.env["DAILIES_AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_DEFAULT_REGION"],
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )


def children_of(parent: int) -> list[int]:
    """The living children of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX" and int(fields[1]) == parent:
                found.append(int(entry.parent.name))
    return sorted(found)


def _foreign(name: str) -> bool:
    return name.startswith(FOREIGN)
