"""What the server does for each statement: its plan, taken at the moment at which the statement runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event

from bench.queue_rows import TABLES

_NAMED = re.compile(r"%\((\w+)\)s")
_SENT_AS = {timedelta: "::interval", datetime: "::timestamptz", int: "::bigint"}


@dataclass(frozen=True)
class Plan:
    """One statement of one operation."""

    operation: str
    statement: str
    told: str  #: EXPLAIN (ANALYZE, BUFFERS), with the values that were given
    generic: str  #: EXPLAIN (GENERIC_PLAN): what a prepared statement gets, whatever the values

    def reads_whole(self, *tables: str) -> bool:
        """Whether one of ``tables`` is read from end to end in either."""
        whole = "|".join(f"Seq Scan on {table}" for table in tables)
        return re.search(rf"({whole})\b", self.told + self.generic) is not None


@dataclass
class Recorder:
    """Explains every statement on the tables that grow; each once an operation."""

    operation: str = ""
    plans: list[Plan] = field(default_factory=list)

    @contextmanager
    def listening(self, engine: Engine) -> Iterator[None]:
        """Explain what runs on ``engine`` within the block."""
        event.listen(engine, "before_cursor_execute", self._explain)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", self._explain)

    def _explain(self, connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        verb = statement.lstrip().split(maxsplit=1)[0]
        known = {(plan.operation, plan.statement) for plan in self.plans}
        if (
            (verb not in {"SELECT", "UPDATE", "WITH", "DELETE"})
            or not any(table in statement for table in TABLES)
            or (self.operation, statement) in known
        ):
            return
        cursor = connection.connection.driver_connection.cursor()
        # It runs here once more than it should, and is taken back.
        cursor.execute("SAVEPOINT explained")
        told = cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {statement}", parameters).fetchall()
        cursor.execute("ROLLBACK TO explained")
        prepared = _prepared(statement, parameters)
        generic = cursor.execute(f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {prepared}").fetchall()
        self.plans.append(Plan(self.operation, statement, _lines(told), _lines(generic)))


def _prepared(statement: str, parameters: dict[str, Any]) -> str:
    """The statement with numbered parameters, of the types that the driver would send."""
    names = list(dict.fromkeys(_NAMED.findall(statement)))

    def number(found: re.Match[str]) -> str:
        return f"${names.index(found[1]) + 1}{_SENT_AS.get(type(parameters[found[1]]), '')}"

    return _NAMED.sub(number, statement).replace("%%", "%")


def _lines(rows: list[tuple[str]]) -> str:
    return "\n".join(line for (line,) in rows)
