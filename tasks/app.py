"""The Celery app: SQS, JSON, late acknowledgement, no results, no canvas."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from celery import Celery, signals

from pipeline import log as logs
from pipeline.settings import Settings, get_settings
from tasks.queues import kombu_queues
from tasks.runtime import enter_child, get_runtime

#: Seconds that Celery waits for a last result of a process that is gone.
LOST_WAIT = 0.5

if TYPE_CHECKING:
    app: Celery  # made on first use; see __getattr__


def make_app(settings: Settings) -> Celery:
    """A Celery app for ``settings``, with one task a stage."""
    from tasks.stages import register

    made = Celery("dailies", set_as_current=False)
    made.conf.update(_broker(settings))
    made.conf.update(
        task_queues=kombu_queues(),
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.worker_concurrency,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_soft_time_limit=settings.soft_time_limit.total_seconds(),
        task_time_limit=settings.hard_time_limit.total_seconds(),
        task_publish_retry=False,
        worker_consumer="tasks.worker:Consumer",
        worker_enable_prefetch_count_reduction=False,
        worker_lost_wait=LOST_WAIT,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        timezone="UTC",
    )
    register(made)
    made.steps["consumer"].add("tasks.worker:Receiving")
    return made


def _broker(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "region": settings.aws_region,
        "queue_name_prefix": settings.queue_prefix,
        "visibility_timeout": int(settings.visibility_timeout.total_seconds()),
        "wait_time_seconds": int(settings.poll_wait.total_seconds()),
        "polling_interval": 0,  # it adds to the long poll
        "supports_fanout": True,
        # The steward is the retry: whoever publishes should not wait long for a broker that is away.
        "max_retries": 0,
        "client-config": {"connect_timeout": 3, "read_timeout": 30, "retries": {"total_max_attempts": 2}},
    }
    url = "sqs://"
    if settings.aws_endpoint_url:
        endpoint = urlsplit(settings.aws_endpoint_url)
        options["is_secure"] = endpoint.scheme == "https"
        url = f"sqs://{endpoint.netloc}"
    return {
        "broker_url": url,  # credentials come from boto3's own chain, never from here
        "broker_transport": "tasks.broker:Transport",
        "broker_transport_options": options,
        "broker_connection_retry_on_startup": True,
    }


@lru_cache(maxsize=1)
def get_app() -> Celery:
    """The app of this process."""
    return make_app(get_settings())


def __getattr__(name: str) -> Any:
    """``tasks.app.app``, for ``celery -A tasks.app``; nothing is built by an import."""
    if name == "app":
        return get_app()
    raise AttributeError(name)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    logs.configure(get_settings(), role="worker")


@signals.worker_process_init.connect
def _start_child(**_: Any) -> None:
    enter_child()


@signals.worker_shutdown.connect
def _stop_worker(sender: Any, **_: Any) -> None:
    crew = getattr(getattr(sender, "consumer", None), "crew", None)
    if crew is not None:
        crew.finish()


@signals.worker_process_shutdown.connect
def _stop_child(**_: Any) -> None:
    if get_runtime.cache_info().currsize:
        get_runtime().engine.dispose()
