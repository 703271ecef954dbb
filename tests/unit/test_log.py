from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from pipeline import log
from pipeline.settings import Settings


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert out == ""  # standard output belongs to what a command answers
    return [json.loads(line) for line in err.splitlines()]


def test_line_is_json_with_event_level_logger_role_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Settings(log_format="json"), role="steward")
    structlog.get_logger("tasks.steward").info("steward_step", count=3)
    (line,) = _lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "steward_step",
        "count": 3,
        "level": "info",
        "logger": "tasks.steward",
        "role": "steward",
    }


def test_line_carries_the_ids_bound_to_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Settings(log_format="json"))
    with bound_contextvars(request_id="r-1", row_id="01890"):
        structlog.get_logger("api").warning("stage_failed")
        logging.getLogger("sqlalchemy").warning("a line of a library: %s", "pool")
    structlog.get_logger("api").warning("later")
    ours, theirs, later = _lines(capsys)
    assert (ours["request_id"], ours["row_id"]) == ("r-1", "01890")
    assert (theirs["request_id"], theirs["event"]) == ("r-1", "a line of a library: pool")
    assert "request_id" not in later
    assert "role" not in ours


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_exception_is_on_the_line_without_local_variables(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"]
) -> None:
    log.configure(Settings(log_format=log_format))
    url = "postgresql://dailies:" + "hunter" * 2
    try:
        len(url) / 0
    except ZeroDivisionError:
        structlog.get_logger("tasks").exception("stage_raised")
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert "hunterhunter" not in err


def test_value_that_is_no_json_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Settings(log_format="json"))
    structlog.get_logger("db").info("odd", error=OSError("gone"), ids={1})
    (line,) = _lines(capsys)
    assert (line["error"], line["ids"]) == ("gone", "{1}")


def test_level_below_the_setting_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Settings(log_format="json", log_level="warning"))
    structlog.get_logger("tasks").info("quiet")
    logging.getLogger("celery").info("quiet")
    structlog.get_logger("tasks").warning("loud")
    assert [line["event"] for line in _lines(capsys)] == ["loud"]


@pytest.mark.parametrize("name", ["botocore.endpoint", "urllib3.connectionpool", "PIL.Image"])
def test_noisy_library_is_heard_from_warnings_on(capsys: pytest.CaptureFixture[str], name: str) -> None:
    log.configure(Settings(log_format="json", log_level="debug"))
    logging.getLogger(name).debug("chatter")
    logging.getLogger(name).warning("trouble")
    assert [line["event"] for line in _lines(capsys)] == ["trouble"]


def test_configuring_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Settings(log_format="json"))
    log.configure(Settings(log_format="json"))
    logging.getLogger("celery").warning("once")
    assert len(_lines(capsys)) == 1


def test_line_of_celery_names_the_row(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Settings(log_format="json"))
    logging.getLogger("celery.app.trace").warning("Task failed", extra={"data": {"id": "01890", "name": "x"}})
    (line,) = _lines(capsys)
    assert line["row_id"] == "01890"
    assert "data" not in line


def test_console_format_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Settings(log_format="console"), role="api")
    structlog.get_logger("api").warning("stage_failed", code="EMPTY_FILE")
    err = capsys.readouterr().err
    assert "stage_failed" in err
    assert "code=EMPTY_FILE" in err
    assert not err.startswith("{")
