"""Processes of ours: they share their parent's fate, are known by pid and start time, and end as a group."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOG_LIMIT_BYTES = 10_000_000
PR_SET_PDEATHSIG = 1  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: nothing may be loaded between fork and exec


@dataclass(frozen=True)
class Identity:
    """One process for good: a pid is used again, a pid with its start time (in clock ticks) is not."""

    pid: int
    ticks: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a living process, None where there is none (a zombie is dead)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The second field is the command's name in brackets and may itself hold brackets and spaces.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal, to this process alone."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True)
class User:
    """Who a process runs as; None each where it is ourselves."""

    uid: int | None = None
    gid: int | None = None
    groups: list[str | int] | None = None

    @classmethod
    def named(cls, name: str | None) -> User:
        """The user that root gives up its rights for; anybody else stays who he is."""
        if name is None or os.geteuid() != 0:
            return cls()
        entry = pwd.getpwnam(name)
        return cls(entry.pw_uid, entry.pw_gid, [])


def end_group(leader: int) -> None:
    """Kill whatever is left of the process group that ``leader`` was started with."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    user: str | None,
    death_signal: signal.Signals,
    umask: int = -1,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own with both outputs in ``log``.

    It gets ``death_signal`` when the calling thread ends, however that happens. ``user`` is who it runs as
    where we are root; ``umask`` is its own, ours where it is -1. The log is its owner's alone.
    """
    _rotate(log)
    log.touch(mode=0o600)
    who = User.named(user)
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid(), death_signal),  # noqa: PLW1509 - two system calls, no lock taken
            user=who.uid,
            group=who.gid,
            extra_groups=who.groups,
            umask=umask,
        )


def _die_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    def in_child() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent was gone before the wish was made
            os._exit(1)

    return in_child


def _rotate(log: Path) -> None:
    """Keep one older log, so that logs stay bounded over many starts."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
