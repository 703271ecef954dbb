"""The worker's side of its decoder: starts it, gives it orders, says what became of one without an answer."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress

from pipeline.decoder import wire
from pipeline.decoder.budget import Budget, budget_for
from pipeline.errors import DailiesError, PermanentStageError, StageError, TransientStageError
from pipeline.stages.base import Asset, Context, Stage, StageOutput

#: Of the environment: what holds secrets, or leads to servers, which a decoder has no business with.
_WITHHELD = ("DAILIES_", "AWS_", "PG", "CELERY")
_END_S = 5.0
#: How a process ends of what it reads. Of anything else somebody may have ended it.
_OF_THE_BYTES = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGILL, -signal.SIGFPE, -signal.SIGTRAP}


class Decoder:
    """A process for stages that read a stranger's bytes; started when first needed, anew after an accident.

    For one thread. The process dies with the one that made it, whatever that dies of.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._end: Callable[[], object] = lambda: None
        self._runs = 0  #: that the process has begun
        self._told_s = 0.0  #: CPU time that its answers told of
        self._ended_s = 0.0  #: CPU time of the processes before it
        self.peak = 0  #: bytes: the most memory that the last run's process held
        self.cpu_s = 0.0  #: CPU time of all runs so far, with the programs that they called

    def run(self, stage: Stage, asset: Asset, context: Context, budget: Budget | None = None) -> StageOutput:
        """Run ``stage`` there. Raises what the stage raises, and what its budget forbids.

        Raises:
            PermanentStageError: MEMORY_LIMIT_EXCEEDED, CPU_LIMIT_EXCEEDED, DECODER_CRASHED.
            TransientStageError: TIME_LIMIT_EXCEEDED, DECODER_CRASHED by a signal that no bytes send.
        """
        self.peak = 0
        size = context.file.size if context.file else asset.size
        budget = budget or budget_for(stage.name, asset.kind, size)
        try:
            body = self._ask(wire.pack_order(wire.Order(stage.name, asset, context, budget)), budget)
        except BaseException:
            self.close()  # in the middle of something: a time limit, a shutdown
            raise
        if body is None:
            raise self._why_it_ended(stage, budget)
        answer = wire.unpack_answer(body, stage.name, context.workdir)
        self.peak = answer.peak
        self.cpu_s += answer.cpu_s
        self._told_s += answer.cpu_s
        if answer.spent:
            self.close()
        if isinstance(answer.outcome, DailiesError):
            raise answer.outcome
        return answer.outcome

    def close(self) -> None:
        """End the process, if there is one. What it has spent and not told of is known then."""
        if self._process is None:
            return
        self._end()
        self.cpu_s += max(0.0, _cpu_s_of_the_ended() - self._ended_s - self._told_s)
        self._process = self._channel = None

    def _ask(self, order: bytes, budget: Budget) -> bytes | None:
        channel = self._started()
        self._runs += 1
        channel.settimeout(budget.wall_s)
        try:
            with suppress(ConnectionError):  # it has ended: the answer will say so
                wire.send(channel, order)
            return wire.receive(channel)
        except TimeoutError as late:
            raise TransientStageError(
                f"The file was not read within {budget.wall_s} s: it hangs its decoder, or this machine is "
                "overloaded.",
                code="TIME_LIMIT_EXCEEDED",
            ) from late

    def _started(self) -> socket.socket:
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self.close()
        ours, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
        arguments = ["-P", "-m", "pipeline.decoder.serve", str(theirs.fileno()), str(os.getpid())]
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=env,
                process_group=0,  # with the programs that it calls
            )
        self._process, self._channel, self._runs = process, ours, 0
        self._ended_s, self._told_s = _cpu_s_of_the_ended(), 0.0
        self._end = weakref.finalize(self, _end, process, ours)
        return ours

    def _why_it_ended(self, stage: Stage, budget: Budget) -> StageError:
        """The error for a process that ended in the middle of a run."""
        assert self._process is not None  # noqa: S101 - it was given an order
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        status = self._process.returncode
        self.close()
        if status == -signal.SIGXCPU:
            return PermanentStageError(
                f"Reading this file takes more than the {budget.cpu_s} s of CPU time that one file may use; "
                "upload a smaller or simpler one.",
                code="CPU_LIMIT_EXCEEDED",
            )
        how = signal.Signals(-status).name if status and status < 0 else f"status {status}"
        # What an earlier file has broken in the process may come to light in this one: it is tried again.
        by_these = status in _OF_THE_BYTES and self._runs == 1
        kind = PermanentStageError if by_these else TransientStageError
        return kind(
            f"{stage.name}: the decoder's process ended ({how}) while it read this file; it is damaged, or "
            "takes too much memory.",
            code="DECODER_CRASHED",
        )


def _cpu_s_of_the_ended() -> float:
    """CPU time of this process's children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    channel.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
