"""Start processes in order, start again what dies, stop all of them: one thread, nothing hidden.

The caller calls ``check()`` a few times a second from the thread that called ``start()``: processes end when
the thread that started them does (prctl's parent-death signal counts threads, not processes).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cli.stack.process import Identity, end_group, spawn
from cli.stack.roles import Role
from cli.stack.state import PRIVATE_UMASK, RoleRecord
from pipeline.errors import InfrastructureError

POLL_S = 0.1
START_LIMIT_S = 90.0
#: With these, everything is gone within 15 s. A killed ministack would lose its state, so it has longest.
PARTS_GRACE_S, SERVER_GRACE_S, KILL_GRACE_S = 5.5, 4.0, 0.4
BACKOFF_S = (0.5, 1, 2, 4, 8, 15, 30)
STEADY_S = 60.0  #: who ran this long starts its backoff anew
LOG_TAIL_LINES = 12


@dataclass
class Member:
    """A role and the process that plays it now."""

    role: Role
    log: Path
    process: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    started_at: datetime | None = None
    started: float = 0.0  #: on the monotonic clock, as is restart_at
    restart_at: float = 0.0
    failures: int = 0
    welcomed: bool = False  #: it was ready once
    status: str = "stopped"  #: stopped, starting, running, restarting

    def record(self) -> RoleRecord:
        """What ``dailies ps`` shows of it."""
        up = self.process is not None
        return {
            "role": self.role.name,
            "pid": self.process.pid if self.process else None,
            "ticks": self.identity.ticks if up and self.identity else None,
            "started_at": self.started_at.isoformat() if self.started_at else "",
            "status": self.status,
        }

    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.process is None or self.process.poll() is not None

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])


class Supervisor:
    """Keeps ``roles`` running. ``say`` tells a person, ``save`` gets the record whenever it changes.

    ``parts_grace``: seconds that what is no server has to end by itself.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        logs: Path,
        say: Callable[[str], object],
        save: Callable[[list[RoleRecord]], None],
        parts_grace: float = PARTS_GRACE_S,
    ) -> None:
        self.members = [Member(role, logs / f"{role.name}.log") for role in roles]
        self._say = say
        self._save = save
        self._parts_grace = parts_grace

    def start(self) -> None:
        """Start every role: each server is ready before the next role starts. Return when all are ready.

        Raises:
            InfrastructureError: when one is not ready in time; its last log lines are in the message.
        """
        for member in self.members:
            self._spawn(member)
            if member.role.server:
                self._wait([member])
        self._wait(self.members)

    def check(self) -> None:
        """Look at every process once: note who is ready, start again who died."""
        for member in self.members:
            if member.status == "restarting":
                if time.monotonic() >= member.restart_at:
                    self._spawn(member)
            elif member.ended():
                self._died(member)
            elif member.status == "starting" and member.role.ready():
                self._welcome(member)

    def stop(self) -> None:
        """Stop in reverse order, the servers last; who does not go in time is killed with its children."""
        parts = [member for member in reversed(self.members) if not member.role.server]
        servers = [member for member in reversed(self.members) if member.role.server]
        self._stop(parts, self._parts_grace)
        for server in servers:
            self._stop([server], SERVER_GRACE_S)

    def _spawn(self, member: Member) -> None:
        role = member.role
        member.process = spawn(
            role.argv,
            env=role.env,
            log=member.log,
            user=role.user,
            death_signal=role.death_signal,
            umask=PRIVATE_UMASK,
        )
        member.identity = Identity.of(member.process.pid)
        member.started_at, member.started = datetime.now(UTC), time.monotonic()
        self._become(member, "starting")

    def _welcome(self, member: Member) -> None:
        """Do what follows a start. At a restart a failure is told and tried again: the others still work."""
        try:
            member.role.on_ready()
        except Exception as error:
            if not member.welcomed:
                raise
            self._say(f"{member.role.name} is back, and what has to follow failed ({error}); trying again")
            return
        member.welcomed = True
        self._become(member, "running")

    def _wait(self, members: Sequence[Member]) -> None:
        limit = time.monotonic() + START_LIMIT_S
        while any(member.status != "running" for member in members):
            self.check()
            late = [
                m for m in members if m.status != "running" and (time.monotonic() > limit or _hopeless(m))
            ]
            if late:
                raise InfrastructureError(
                    f"{late[0].role.name} did not start. The end of {late[0].log}:\n{late[0].tail()}",
                    code="STACK_START_FAILED",
                )
            time.sleep(POLL_S)

    def _died(self, member: Member) -> None:
        process = member.process
        if process is None:
            return
        end_group(process.pid)
        lived = time.monotonic() - member.started
        member.failures = 0 if lived > STEADY_S else member.failures + 1
        wait = BACKOFF_S[min(member.failures, len(BACKOFF_S) - 1)]
        member.restart_at = time.monotonic() + wait
        member.process = member.identity = None
        text = (
            f"{member.role.name} (pid {process.pid}) ended with {_outcome(process.returncode)}"
            f" after {lived:.0f} s; starting it again in {wait:g} s, its log is {member.log}"
        )
        self._say(text)
        with member.log.open("a", encoding="utf-8") as log:
            log.write(f"supervisor: {datetime.now(UTC).isoformat()} {text}\n")
        self._become(member, "restarting")

    def _stop(self, members: Sequence[Member], grace: float) -> None:
        members = [member for member in members if member.process is not None]
        for member in members:
            if member.identity:
                member.identity.send(member.role.stop_signal)
        _wait_for_end(members, grace)
        for member in members:
            if member.process:
                end_group(member.process.pid)
        _wait_for_end(members, KILL_GRACE_S)
        for member in members:
            member.process = member.identity = None
            self._become(member, "stopped")

    def _become(self, member: Member, status: str) -> None:
        member.status = status
        self._save([one.record() for one in self.members])


def _hopeless(member: Member) -> bool:
    """Who dies this often while the stack starts will not come up."""
    return member.failures >= 3  # noqa: PLR2004 - three tries


def _outcome(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"


def _wait_for_end(members: Sequence[Member], grace: float) -> None:
    limit = time.monotonic() + grace
    while time.monotonic() < limit and not all(member.ended() for member in members):
        time.sleep(POLL_S / 2)
