"""The one reader of the environment. Nothing is built at import: call ``get_settings()`` where needed."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, Field, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipeline.workflows import DISPENSABLE, StageName


def _bare_seconds(value: object) -> object:
    """The environment has only strings, and pydantic reads only numbers as seconds."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value) else value


def _names(value: object) -> object:
    """The environment says ``a,b``; pydantic would read JSON."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Seconds = Annotated[timedelta, BeforeValidator(_bare_seconds)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Every setting of Dailies; each is read from the environment variable ``DAILIES_<NAME>``.

    Durations take seconds (``300``) or ISO 8601 (``PT5M``), sizes take bytes or ``200MB``.
    Unknown ``DAILIES_`` variables are refused by ``dailies doctor``, not here: child processes inherit the
    variables of their siblings.
    """

    model_config = SettingsConfigDict(env_prefix="DAILIES_", env_file=".env", extra="ignore", frozen=True)

    environment: str = Field(
        "dev", pattern=r"^[a-z][a-z0-9-]{0,15}$", description="Suffix of AWS resource names."
    )
    database_url: SecretStr = Field(
        SecretStr(""), description="libpq URL: postgresql://user:password@host:port/db"
    )
    aws_endpoint_url: str | None = Field(
        None, description="Where the AWS API answers; empty means AWS itself."
    )
    aws_region: str = Field("us-east-1", validation_alias="AWS_DEFAULT_REGION")

    storage_bucket: str = "dailies-storage-dev"
    thumbnail_bucket: str = "dailies-thumbnails-dev"
    queue_prefix: str = Field("dailies-dev-", pattern=r"^[A-Za-z0-9_-]{0,40}$")

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_url: str | None = Field(
        None, description="The URL under which clients reach the API; for links in answers."
    )
    api_trusted_network: bool = Field(
        default=False,
        description="The API has no authentication yet; true lets it bind beyond loopback, "
        "where the network itself lets nobody else in.",
    )
    flower_host: str = "127.0.0.1"
    flower_port: Port = 5555
    flower_url: str | None = None
    flower_basic_auth: SecretStr | None = Field(
        None, description="user:password; Flower does not start without."
    )

    db_pool_size: PositiveInt = Field(5, description="Connections a process may hold (API: its thread pool).")
    worker_concurrency: PositiveInt = Field(2, description="Pool processes of a worker.")
    lease: Seconds = Field(
        timedelta(seconds=60),
        ge=timedelta(seconds=2),
        le=timedelta(hours=12),
        description="How long a row stays its worker's without a word; renewed at a third of it.",
    )
    visibility_timeout: Seconds = Field(
        timedelta(seconds=60),
        ge=timedelta(seconds=2),
        le=timedelta(hours=12),
        description="How long SQS hides a message that was received; renewed at a third of it.",
    )
    heavy_stages: Annotated[frozenset[StageName], NoDecode, BeforeValidator(_names)] = Field(
        frozenset(),
        description="Stages, with commas between, whose rows wait in the lane `heavy` whatever their job's "
        "priority: a fleet of their own.",
    )
    optional_stages: Annotated[frozenset[StageName], NoDecode, BeforeValidator(_names)] = Field(
        frozenset(),
        description="Stages, with commas between, whose failure is a warning on an upload's job instead of "
        "its end: metadata, thumbnails.",
    )
    poll_wait: Seconds = Field(timedelta(seconds=10), ge=timedelta(0), le=timedelta(seconds=20))
    max_attempts: PositiveInt = 3
    max_crashes: PositiveInt = 3
    retry_base: Seconds = timedelta(seconds=5)
    retry_cap: Seconds = timedelta(minutes=10)
    soft_time_limit: Seconds = timedelta(minutes=15)
    hard_time_limit: Seconds = timedelta(minutes=15, seconds=30)
    shutdown_grace: Seconds = Field(
        timedelta(seconds=30),
        ge=timedelta(0),
        description="What running stages get after SIGTERM; then their rows are given back.",
    )
    worker_silent: Seconds = Field(
        timedelta(seconds=90), gt=timedelta(0), description="A worker without a word for so long is lost."
    )
    poll_stalled: Seconds = Field(
        timedelta(minutes=3),
        gt=timedelta(0),
        description="A worker with a free slot that has completed no poll for so long exits.",
    )

    steward_interval: Seconds = Field(timedelta(seconds=5), gt=timedelta(0))
    lost_after: Seconds = Field(
        timedelta(seconds=30),
        gt=timedelta(0),
        description="How long a published row may wait in an empty queue before its message counts as lost.",
    )
    bucket_scan_every: Seconds = Field(
        timedelta(minutes=10), gt=timedelta(0), description="Between two listings of the buckets."
    )
    orphan_age: Seconds = Field(
        timedelta(hours=1),
        gt=timedelta(0),
        description="How old an object must be to count as an orphan, and how long an ended item has some.",
    )
    keep_finished: Seconds = Field(
        timedelta(days=90), gt=timedelta(0), description="How long ended jobs are kept, with all their rows."
    )
    keep_ended_items: Seconds = Field(
        timedelta(days=90),
        gt=timedelta(0),
        description="How long deleted and replaced media items are known; a key's newest is for ever.",
    )
    keep_dead_letters: Seconds = Field(
        timedelta(days=180), gt=timedelta(0), description="How long dead letters are kept, open or resolved."
    )
    keep_audit: Seconds = Field(
        timedelta(days=730), gt=timedelta(0), description="How long audit entries are kept, in whole months."
    )

    upload_limit: ByteSize = Field(ByteSize(200_000_000), description="Largest file accepted.")
    spool_dir: Path = Field(Path("var/spool"), description="Local copies of objects being worked on.")
    spool_limit: ByteSize = Field(ByteSize(5_000_000_000), description="Bytes the spool may hold.")
    room_margin: ByteSize = Field(
        ByteSize(500_000_000), description="Bytes of the spool's disk to keep free; else nothing starts."
    )
    image_pixel_limit: PositiveInt = Field(250_000_000, description="Pixels a picture may have.")
    jpeg_quality: int = Field(85, ge=1, le=100)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _soft_before_hard(self) -> Settings:
        """The soft limit lets a stage say why it ends; the hard one kills its process."""
        if not self.soft_time_limit < self.hard_time_limit:
            msg = "soft_time_limit < hard_time_limit must hold: the soft one lets a stage say why it ends"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _only_what_can_be_done_without(self) -> Settings:
        if needed := self.optional_stages - DISPENSABLE:
            msg = (
                f"optional_stages: the chain cannot go on without {', '.join(sorted(needed))};"
                f" only {' and '.join(sorted(DISPENSABLE))} may be optional"
            )
            raise ValueError(msg)
        return self


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
