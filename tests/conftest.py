"""Real servers for every test run: one PostgreSQL and one AWS API in a folder of their own, on free ports.

The process that was started as ``pytest`` runs them; each xdist worker has its own database, buckets and
queues on them. So runs do not meet each other, nor a stack that is up.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.orm import Session

from cli.stack.embedded import running, servers
from cli.stack.state import State
from db import migrate
from db.models import Base
from db.session import Sessions, make_engine, session_factory
from pipeline.settings import Settings, get_settings
from tasks.bootstrap import bootstrap
from tasks.queues import aws_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

CLEAN_UP = pytest.StashKey[ExitStack]()
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
#: The files that take minutes: begun first, none of them is what the others wait for at the end.
LONGEST = (
    "test_faults.py",
    "test_windows.py",
    "test_up.py",
    "test_worker_guards.py",
    "test_queue_machine.py",
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        _become_worker()
    elif not config.option.collectonly:
        config.stash[CLEAN_UP] = ExitStack()
        config.stash[CLEAN_UP].enter_context(_servers())
        _become_worker()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the order, but for the longest files."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_unconfigure(config: pytest.Config) -> None:
    if CLEAN_UP in config.stash:
        config.stash[CLEAN_UP].close()


@contextmanager
def _servers() -> Iterator[None]:
    """Both servers for the length of the run; their addresses go to the workers by the environment."""
    folder = Path(tempfile.mkdtemp(prefix="dailies-tests-"))
    before = dict(os.environ)
    try:
        with running(State(folder), partial(servers, durable=False), say=sys.stderr.write):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def _become_worker() -> None:
    """Names of this worker's own on the shared servers; an inherited name of another worker is replaced."""
    url = make_url(os.environ["DAILIES_DATABASE_URL"]).set(database=f"test_{WORKER}")
    os.environ.update(
        DAILIES_DATABASE_URL=url.render_as_string(hide_password=False),
        DAILIES_STORAGE_BUCKET=f"dailies-storage-{WORKER}",
        DAILIES_THUMBNAIL_BUCKET=f"dailies-thumbnails-{WORKER}",
        DAILIES_QUEUE_PREFIX=f"dailies-{WORKER}-",
    )
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def settings() -> Settings:
    """What ``get_settings()`` gives; for others use ``settings.model_copy(update=...)``."""
    return get_settings()


@pytest.fixture(scope="session")
def empty_database(settings: Settings) -> str:
    """The URL of this worker's database before any migration."""
    url = make_url(settings.database_url.get_secret_value())
    admin = create_engine(
        url.set(drivername="postgresql+psycopg", database="postgres"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{url.database}"'))
        connection.execute(text(f'CREATE DATABASE "{url.database}"'))
    admin.dispose()
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def database(empty_database: str) -> str:
    """The URL of this worker's database, made by the migrations."""
    migrate.upgrade(empty_database)
    return empty_database


@pytest.fixture(scope="session")
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session whose commits are undone after the test (they release a savepoint)."""
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False) as session:
            yield session
        transaction.rollback()


@pytest.fixture
def sessions(engine: Engine) -> Iterator[Sessions]:
    """Sessions whose commits are real, for races and other processes; the tables are emptied afterwards."""
    yield session_factory(engine)
    tables = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
    with engine.begin() as connection:
        # "replica" keeps triggers from firing: the audit log refuses to be emptied.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"TRUNCATE {tables} CASCADE"))


@pytest.fixture(scope="session")
def aws(settings: Settings) -> Settings:
    """The settings, once this worker's buckets, notifications and queues are there."""
    bootstrap(settings)
    return settings


@pytest.fixture(scope="session")
def s3(aws: Settings) -> Iterator[S3Client]:
    client: S3Client = aws_client(aws, "s3")
    yield client
    client.close()


@pytest.fixture(scope="session")
def sqs(aws: Settings) -> Iterator[SQSClient]:
    client: SQSClient = aws_client(aws, "sqs")
    yield client
    client.close()


@pytest.fixture(scope="session")
def bucket(aws: Settings) -> str:
    """The storage bucket's name. Other tests use it too: take a key of your own."""
    return aws.storage_bucket


@pytest.fixture
def empty_queues(aws: Settings, sqs: SQSClient) -> Settings:
    """The settings, with every queue of this worker emptied."""
    for url in sqs.list_queues(QueueNamePrefix=aws.queue_prefix).get("QueueUrls", []):
        sqs.purge_queue(QueueUrl=url)
    return aws
