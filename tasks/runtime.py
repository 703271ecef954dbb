"""What a process that works on rows holds: settings, database, object store, spool. Built once a process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from functools import lru_cache

from db.session import Engine, Sessions, make_engine, session_factory
from pipeline.decoder.process import Decoder
from pipeline.retry import RetryPolicy
from pipeline.settings import Settings, get_settings
from pipeline.spool import Spool
from pipeline.storage import ObjectStore
from tasks.queues import queues_of


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts, wired."""

    settings: Settings
    engine: Engine
    sessions: Sessions
    store: ObjectStore
    spool: Spool
    policy: RetryPolicy
    decoder: Decoder = field(default_factory=Decoder)  #: for the one thread that runs stages

    @property
    def worker(self) -> str:
        """Who works, as rows name it: the worker, and where it has pool processes, which of them."""
        return f"{worker_id(os.getppid())}/{os.getpid()}" if _is_child else worker_id()


def worker_id(pid: int | None = None) -> str:
    """Who a worker is, in the table ``workers``: host and main process."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"


_is_child = False


def enter_child() -> None:
    """This process is a pool's, just forked: nothing of its parent's is for it, connections least of all."""
    global _is_child  # noqa: PLW0603 - one process, one answer
    _is_child = True
    get_runtime.cache_clear()
    queues_of.cache_clear()


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
