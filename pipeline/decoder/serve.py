"""The decoder itself: runs one stage after another, each under its budget, until its worker goes."""

from __future__ import annotations

import ctypes
import errno
import gc
import math
import os
import resource
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from pipeline.decoder import wire
from pipeline.decoder.budget import Budget
from pipeline.errors import DailiesError, PermanentStageError, TransientStageError, disk_is_full
from pipeline.stages import STAGES
from pipeline.stages.base import StageOutput

MOST_RUNS = 500  #: then a new process: what a library leaks does not add up
MOST_HELD = 400_000_000  #: bytes held between two runs
_PR_SET_PDEATHSIG = 1
_FORGET_PEAK = "5"  # proc(5), clear_refs


def main() -> None:
    """Serve the socket that was inherited as the file descriptor of the first argument."""
    _die_with_parent(int(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The worker decides when this process ends; a key pressed in its terminal is meant for the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit raises instead
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        runs = 0
        while (body := wire.receive(channel)) is not None:
            runs += 1
            wire.send(channel, _answer(body, spent=runs >= MOST_RUNS))


def _answer(body: bytes, *, spent: bool) -> bytes:
    order = wire.unpack_order(body)
    tempfile.tempdir = str(order.context.workdir)  # whatever is left there goes with it
    before = _cpu_s()
    _forget_peak()
    _limit(order.budget)
    answer: StageOutput | DailiesError
    try:
        answer = STAGES[order.stage].run(order.asset, order.context)
    except DailiesError as error:
        answer = error
    except MemoryError:
        answer, spent = out_of_memory(order.budget), True
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker is told
        answer = _unexpected(order, error)
    _unlimit()
    spent = spent or _status("VmRSS") > MOST_HELD
    return wire.pack_answer(answer, peak=_status("VmHWM"), cpu_s=_cpu_s() - before, spent=spent)


def _unexpected(order: wire.Order, error: Exception) -> DailiesError:
    if isinstance(error, OSError):
        if error.errno == errno.EFBIG:
            return PermanentStageError(
                f"Reading this file makes another of more than {order.budget.output / 1e6:,.0f} MB, which "
                "none may have; upload a smaller or simpler one.",
                code="OUTPUT_LIMIT_EXCEEDED",
            )
        if full := disk_is_full(error):
            return full
    return TransientStageError(
        f"{order.stage} met an unexpected {type(error).__name__}: {error}", code="INTERNAL_ERROR"
    )


def out_of_memory(budget: Budget) -> PermanentStageError:
    """What a file is told that needs more than its budget."""
    return PermanentStageError(
        f"Reading this file takes more than the {budget.memory / 1e6:,.0f} MB of memory that one file may "
        "use; upload a smaller or simpler one.",
        code="MEMORY_LIMIT_EXCEEDED",
    )


def _cpu_s() -> float:
    """CPU time of this process, and of the programs that it has called and seen end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _limit(budget: Budget) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = math.ceil(used.ru_utime + used.ru_stime) + budget.cpu_s
    _soft(resource.RLIMIT_CPU, cpu)
    _soft(resource.RLIMIT_DATA, _status("VmData") + budget.memory)
    _soft(resource.RLIMIT_FSIZE, budget.output)


def _unlimit() -> None:
    """The answer is ours, and must get through."""
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        _soft(kind, resource.RLIM_INFINITY)


def _soft(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _status(field: str) -> int:
    """A size of this process in bytes, as proc(5) names it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    with suppress(OSError):  # where it is forbidden the peak is that of all runs so far
        Path("/proc/self/clear_refs").write_text(_FORGET_PEAK, encoding="ascii")


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we could ask
        os._exit(0)


if __name__ == "__main__":
    main()
