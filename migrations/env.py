"""Alembic's entry: one transaction a revision, one migration at a time, no long waits for locks."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from db.models import Base
from db.session import make_engine

#: Any fixed number will do: two migrations of one database wait for each other here.
ADVISORY_LOCK = 7_402_001


def run() -> None:
    """Run the revisions that were asked for."""
    engine = make_engine(context.config.attributes["database_url"], pool_size=1)
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = 0; SET statement_timeout = '15min'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        # A migration that waits for a lock makes everybody behind it wait too: give up, and be run again.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            compare_type=True,
            compare_server_default=True,
        )
        try:
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
            connection.commit()
    engine.dispose()


run()
