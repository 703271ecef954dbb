"""structlog for every process: one line an event, the event a constant, the data fields."""

from __future__ import annotations

import logging
import sys

import structlog

from pipeline.settings import Settings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Libraries that tell more than anybody wants to know.
_NOISY = ("botocore", "boto3", "urllib3", "s3transfer", "PIL", "kombu.asynchronous", "uvicorn.access")


def _flatten_celery(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Celery puts the task's id, which is the row's, into a field ``data``: name it as our own lines do."""
    data = event.pop("data", None)
    if isinstance(data, dict) and "id" in data:
        event["row_id"] = data["id"]
    return event


def configure(settings: Settings, *, role: str = "") -> None:
    """Send our own lines and those of the libraries to standard error in one format.

    Fields bound in ``structlog.contextvars`` (request, job and row ids) are on every line.
    """
    shared = _shared(role)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=_final(settings), foreign_pre_chain=shared)
    )
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[settings.log_level])
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, _LEVELS[settings.log_level]))


def _shared(role: str) -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.stdlib.ExtraAdder(),
        _flatten_celery,
        lambda _logger, _method, event: {**event, "role": role} if role else event,
    ]


def _final(settings: Settings) -> list[structlog.typing.Processor]:
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.log_format == "json":
        return [*final, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    # The default shows local variables, and with them passwords.
    plain = structlog.dev.plain_traceback
    return [
        *final,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain),
    ]
