from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from db import audit, migrate
from db.models import Base, DeadLetterReason, MediaItem, Outcome, Resolution, WorkerState
from db.session import Sessions
from pipeline.settings import Settings
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName, WorkflowType
from tests.factories import add_item
from tests.support import in_threads, scratch_database

#: What PostgreSQL says of the schema, by name. Partitions are data: the steward makes them.
CONSTRAINTS = """
SELECT c.conrelid::regclass || '.' || c.conname, pg_get_constraintdef(c.oid)
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
WHERE c.connamespace = 'public'::regnamespace AND NOT t.relispartition AND t.relname <> 'alembic_version'
"""
INDEXES = """
SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relnamespace = 'public'::regnamespace AND NOT t.relispartition AND t.relname <> 'alembic_version'
"""
COLUMNS = """
SELECT t.relname || '.' || a.attname,
       format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || coalesce(' ' || a.attgenerated::text || ' ' || pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND NOT t.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped AND t.relname <> 'alembic_version'
"""
LEFT_OVER = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic%'
UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""
ENUMS: dict[str, type[StrEnum]] = {
    "ck_processing_queue_status_known": TaskStatus,
    "ck_processing_queue_job_type_known": StageName,
    "ck_processing_jobs_status_known": JobStatus,
    "ck_processing_jobs_workflow_type_known": WorkflowType,
    "ck_processing_attempts_outcome_known": Outcome,
    "ck_dead_letters_reason_known": DeadLetterReason,
    "ck_dead_letters_resolution_known": Resolution,
    "ck_workers_state_known": WorkerState,
}


def _engine(url: str) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"))


def _schema(connection: Connection, catalogue: str) -> dict[str, str]:
    return dict(connection.execute(text(catalogue)).all())


@pytest.fixture(scope="module")
def model(settings: Settings) -> Iterator[Connection]:
    """A database made from the models, without a migration."""
    with scratch_database(settings, "model") as url:
        engine = _engine(url)
        Base.metadata.create_all(engine)
        with engine.connect() as connection:
            yield connection
        engine.dispose()


@pytest.fixture(scope="module")
def fresh(settings: Settings) -> Iterator[Engine]:
    """A database of its own, made by the migrations: others build the shared one's indexes again."""
    with scratch_database(settings, "fresh") as url:
        migrate.upgrade(url)
        engine = _engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def migrated(fresh: Engine) -> Iterator[Connection]:
    with fresh.connect() as connection:
        yield connection


@pytest.mark.parametrize(
    "catalogue", [CONSTRAINTS, INDEXES, COLUMNS], ids=["constraints", "indexes", "columns"]
)
def test_migrated_database_is_that_of_the_models_to_the_letter(
    migrated: Connection, model: Connection, catalogue: str
) -> None:
    assert _schema(migrated, catalogue) == _schema(model, catalogue)
    assert len(_schema(model, catalogue)) > 20


def test_alembic_sees_no_difference(migrated: Connection) -> None:
    def ours(_: Any, name: str | None, kind: str, *__: Any) -> bool:
        return not (kind == "table" and str(name).startswith("audit_log_"))

    context = MigrationContext.configure(
        migrated, opts={"compare_type": True, "compare_server_default": True, "include_object": ours}
    )
    assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize("name", ENUMS)
def test_list_in_the_database_is_that_of_the_enum(migrated: Connection, name: str) -> None:
    listed = migrated.scalar(
        text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name"), {"name": name}
    )
    assert set(re.findall(r"'(\w+)'", listed or "")) == set(ENUMS[name])


def test_every_list_of_a_column_is_compared_with_its_enum(migrated: Connection) -> None:
    found = migrated.scalars(text("SELECT conname FROM pg_constraint WHERE conname LIKE 'ck\\_%\\_known'"))
    assert set(found) == set(ENUMS)


def test_claims_and_sweeps_read_partial_indexes_only_of_what_lives(migrated: Connection) -> None:
    indexes = _schema(migrated, INDEXES)
    for name in ("unpublished", "due", "at_work", "active"):
        assert " WHERE " in indexes[f"ix_processing_queue_{name}"]
    assert "UNIQUE" in indexes["uq_processing_jobs_active"]
    assert "UNIQUE" in indexes["uq_media_items_hash_holder"]


def test_there_is_one_head() -> None:
    assert len(migrate.heads()) == 1


def test_up_and_down_and_up_again(settings: Settings, migrated: Connection) -> None:
    with scratch_database(settings, "updown") as url:
        migrate.upgrade(url)
        engine = _engine(url)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO audit_log (audit_id, entity_type, entity_id, action)"
                    " VALUES (gen_random_uuid(), 'x', gen_random_uuid(), 'y')"
                )
            )
        migrate.downgrade(url, "base")
        with engine.connect() as connection:
            assert connection.scalars(text(LEFT_OVER)).all() == []
        migrate.upgrade(url)
        migrate.upgrade(url)  # nothing to do
        with engine.connect() as connection:
            for catalogue in (CONSTRAINTS, INDEXES, COLUMNS):
                assert _schema(connection, catalogue) == _schema(migrated, catalogue)
        engine.dispose()


def test_two_processes_that_migrate_at_once_do_it_once(settings: Settings) -> None:
    with scratch_database(settings, "atonce") as url:
        code = "import sys; from db.migrate import upgrade; upgrade(sys.argv[1])"
        started = [
            subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE, text=True)  # noqa: S603
            for _ in range(2)
        ]
        assert [process.communicate(timeout=60)[1] for process in started] == ["", ""]
        assert [process.returncode for process in started] == [0, 0]
        engine = _engine(url)
        with engine.connect() as connection:
            found = connection.scalars(text("SELECT version_num FROM alembic_version"))
            assert tuple(found) == migrate.heads()
        engine.dispose()


def _entry(session: Session) -> None:
    audit.record(session, entity_type="media_item", entity_id=uuid4(), action="looked_at", actor="ada")
    session.flush()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "TRUNCATE media_items, audit_log CASCADE",
    ],
)
def test_audit_log_refuses_every_change(session: Session, statement: str) -> None:
    _entry(session)
    with pytest.raises(ProgrammingError, match="append-only"):
        session.execute(text(statement))


@pytest.mark.parametrize("verb", ["UPDATE {} SET actor = 'nobody'", "DELETE FROM {}", "TRUNCATE {}"])
def test_partition_of_the_audit_log_refuses_every_change_too(session: Session, verb: str) -> None:
    _entry(session)
    partition = session.scalar(text("SELECT tableoid::regclass::text FROM audit_log"))
    assert partition == f"audit_log_{datetime.now(UTC):%Y_%m}"
    with pytest.raises(ProgrammingError, match="append-only"):
        session.execute(text(verb.format(partition)))


def _tell(session: Session, *days: str) -> None:
    for day in days:
        session.execute(
            text(
                "INSERT INTO audit_log (audit_id, created_at, entity_type, entity_id, action) VALUES"
                " (gen_random_uuid(), CAST(:day AS timestamptz), 'media_item', gen_random_uuid(), 'x')"
            ),
            {"day": day},
        )


def test_partitions_are_made_once_and_take_the_entries_of_their_month(session: Session) -> None:
    for _ in range(2):
        audit.ensure_partitions(session, date(2031, 11, 30), months_ahead=3)
    names = session.scalars(
        text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relname LIKE '%_203%'")
    )
    assert sorted(names) == [
        "audit_log_2031_11",
        "audit_log_2031_12",
        "audit_log_2032_01",
        "audit_log_2032_02",
    ]
    found = session.scalar(
        text(
            "INSERT INTO audit_log (audit_id, created_at, entity_type, entity_id, action) VALUES"
            " (gen_random_uuid(), '2031-12-31 23:59:59.999+00', 'x', gen_random_uuid(), 'y')"
            " RETURNING tableoid::regclass::text"
        )
    )
    assert found == "audit_log_2031_12"


def test_months_of_the_audit_log_that_are_past_their_time_are_dropped_whole(session: Session) -> None:
    audit.ensure_partitions(session, date(1999, 11, 30), months_ahead=2)
    _tell(session, "1999-11-05", "1999-12-31", "2000-01-01", "1980-01-01")
    assert audit.drop_months(session, date(2000, 1, 1)) == 2
    assert audit.drop_months(session, date(2000, 1, 31)) == 0
    left = session.scalars(text("SELECT tableoid::regclass::text FROM audit_log ORDER BY created_at")).all()
    assert left == ["audit_log_default", "audit_log_2000_01"]


def test_entry_of_a_month_without_partition_is_kept(session: Session) -> None:
    session.execute(
        text(
            "INSERT INTO audit_log (audit_id, created_at, entity_type, entity_id, action) VALUES"
            " (gen_random_uuid(), '2050-01-01', 'x', gen_random_uuid(), 'y')"
        )
    )
    assert session.scalar(text("SELECT count(*) FROM audit_log_default")) == 1


def test_partition_is_made_for_a_month_that_has_entries_already(session: Session) -> None:
    """The steward was away for months; entries went to the default partition meanwhile."""
    session.execute(
        text(
            "INSERT INTO audit_log (audit_id, created_at, entity_type, entity_id, action) VALUES"
            " (gen_random_uuid(), '2040-01-15', 'x', gen_random_uuid(), 'y')"
        )
    )
    audit.ensure_partitions(session, date(2040, 1, 20), months_ahead=1)
    assert session.scalar(text("SELECT count(*) FROM audit_log")) == 1


def test_partitions_made_at_once_by_several_are_made_once(sessions: Sessions, engine: Engine) -> None:
    def ensure(_: int) -> None:
        with sessions.begin() as session:
            audit.ensure_partitions(session, date(2035, 5, 1), months_ahead=0)

    in_threads(4, ensure)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE audit_log_2035_05"))


@pytest.mark.parametrize("table", ["media_items", "processing_jobs", "processing_queue", "search_documents"])
def test_table_that_is_touched_has_the_trigger(migrated: Connection, table: str) -> None:
    found = migrated.scalars(
        text("SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:table AS regclass) AND NOT tgisinternal"),
        {"table": table},
    )
    assert list(found) == [f"{table}_set_updated_at"]


def test_every_model_with_updated_at_has_a_trigger(migrated: Connection) -> None:
    columns = _schema(migrated, COLUMNS)
    triggers = migrated.scalars(text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"))
    touched = {name.split(".")[0] for name in columns if name.endswith(".updated_at")}
    assert touched == {
        name.removesuffix("_set_updated_at") for name in triggers if name.endswith("_set_updated_at")
    }


def test_change_of_a_row_moves_updated_at(sessions: Sessions) -> None:
    with sessions.begin() as session:
        item_id = add_item(session).id
    with sessions.begin() as session:
        item = session.get_one(MediaItem, item_id)
        before = item.updated_at
        item.kind = "video"
    with sessions() as session:
        assert session.get_one(MediaItem, item_id).updated_at > before
