"""What a process that works on rows holds: settings, database, object store, spool. Built once a process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache

from db.session import Engine, Sessions, make_engine, session_factory
from pipeline.retry import RetryPolicy
from pipeline.settings import Settings, get_settings
from pipeline.spool import Spool
from pipeline.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts, wired."""

    settings: Settings
    engine: Engine
    sessions: Sessions
    store: ObjectStore
    spool: Spool
    policy: RetryPolicy

    @property
    def worker(self) -> str:
        """Who works: host and process, as an operator would look for it."""
        return f"{socket.gethostname()}:{os.getpid()}"


def build(settings: Settings, *, pool_size: int = 2) -> Runtime:
    """A runtime for ``settings`` whose engine holds at most ``pool_size`` connections."""
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=pool_size)
    return Runtime(
        settings=settings,
        engine=engine,
        sessions=session_factory(engine),
        store=ObjectStore(settings),
        spool=Spool(settings.spool_dir, settings.spool_limit),
        policy=RetryPolicy(
            max_attempts=settings.max_attempts, base=settings.retry_base, cap=settings.retry_cap
        ),
    )


@lru_cache(maxsize=1)
def get_runtime() -> Runtime:
    """The runtime of this process. A forked child clears this first: connections are not for sharing."""
    return build(get_settings())
