"""Bring the database to a revision. Safe to run from several processes at once."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def config(database_url: str) -> Config:
    """Alembic's configuration for ``database_url`` (a libpq URL); there is no alembic.ini."""
    cfg = Config()
    cfg.set_main_option("script_location", str(MIGRATIONS))
    cfg.attributes["database_url"] = database_url
    return cfg


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply every migration up to ``revision``."""
    command.upgrade(config(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Take back every migration above ``revision`` (``base`` for all)."""
    command.downgrade(config(database_url), revision)


def heads() -> tuple[str, ...]:
    """The newest revisions in the code; more than one means two branches were not merged."""
    return tuple(ScriptDirectory.from_config(config("")).get_heads())
