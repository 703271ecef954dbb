"""What a run cost: processor time by role, requests to AWS, transactions, time of the pool processes."""

from __future__ import annotations

import json
import os
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, text

from bench.counting import COUNTS_PATH
from cli.stack.supervisor import Supervisor

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
POOL = "worker, pool processes"
BENCH = "bench: uploads, polls, supervises"
IDLE = "idle"

STAGES = text("""
    SELECT r.job_type AS stage, sum(a.duration_ms) AS stage_ms, sum(a.cpu_ms) AS cpu_ms,
           extract(epoch FROM sum(a.finished_at - a.started_at)) * 1000 AS held_ms
    FROM processing_attempts a JOIN processing_queue r ON r.id = a.row_id
    WHERE a.started_at >= :since GROUP BY r.job_type ORDER BY min(r.position)
""")
TRANSACTIONS = text(
    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
)


@dataclass(frozen=True)
class Costs:
    """Counters that only grow; the difference of two is what happened in between."""

    cpu_s: dict[str, float]  #: by role
    requests: dict[str, float]  #: by service and operation

    def since(self, before: Costs) -> Costs:
        """What was added."""
        return Costs(_difference(self.cpu_s, before.cpu_s), _difference(self.requests, before.requests))


def read(supervisor: Supervisor, aws_url: str) -> Costs:
    """The counters now."""
    with urllib.request.urlopen(aws_url + COUNTS_PATH, timeout=10) as answer:  # noqa: S310 - our own server
        requests: dict[str, float] = json.load(answer)
    return Costs(_cpu_by_role(supervisor), requests)


def transactions(connection: Connection) -> int:
    """Transactions of the database so far, as far as its processes have told (idle ones do after 10 s)."""
    return int(connection.scalar(TRANSACTIONS) or 0)


def stages(connection: Connection, since: datetime) -> dict[str, dict[str, float]]:
    """For each stage, milliseconds of all attempts begun since: of the stage, its processor, the claim."""
    rows = connection.execute(STAGES, {"since": since}).mappings()
    return {
        row["stage"]: {name: float(row[name]) for name in ("stage_ms", "cpu_ms", "held_ms")} for row in rows
    }


def _cpu_by_role(supervisor: Supervisor) -> dict[str, float]:
    """Processor seconds of every role with its descendants, those that have ended as well."""
    own, with_reaped, children = _processes()
    spent = {BENCH: own[os.getpid()], IDLE: _idle()}
    for member in supervisor.members:
        if member.process is None:
            continue
        pid = member.process.pid
        below = _descendants(pid, children)
        role = member.role.name
        if role == "worker":
            spent[POOL] = sum(with_reaped[one] for one in below) + with_reaped[pid] - own[pid]
            spent["worker, main process"] = own[pid]
        else:
            spent[role] = with_reaped[pid] + sum(with_reaped[one] for one in below)
    return spent


def _processes() -> tuple[Mapping[int, float], Mapping[int, float], Mapping[int, list[int]]]:
    """Of every process: its seconds, its seconds with those of its ended children, its living children."""
    own: dict[int, float] = defaultdict(float)
    with_reaped: dict[int, float] = defaultdict(float)
    children: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        pid, ticks = (
            int(stat.parent.name),
            [int(field) for field in fields[11:15]],
        )  # proc(5): utime to cstime
        own[pid], with_reaped[pid] = sum(ticks[:2]) / TICKS_A_SECOND, sum(ticks) / TICKS_A_SECOND
        children[int(fields[1])].append(pid)
    return own, with_reaped, children


def _idle() -> float:
    """Seconds in which a processor of this machine had nothing to do, or waited for a disk."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / TICKS_A_SECOND


def _descendants(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    return [one for child in children[pid] for one in (child, *_descendants(child, children))]


def _difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0) for name, value in after.items()}


def per_asset(counter: Mapping[str, float], assets: int) -> dict[str, float]:
    """A counter's values divided, largest first; what is nothing is left out."""
    largest = sorted(counter.items(), key=lambda item: -item[1])
    return {name: value / assets for name, value in largest if value}
