"""The Celery tasks: thin shims around claim, work, settle."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import UUID

import structlog
from celery import Celery, Task
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from structlog.contextvars import bound_contextvars

from db import effects, queue
from db.effects import Done, Stored
from db.session import Session, guarded
from pipeline.errors import (
    DailiesError,
    InfrastructureError,
    NotOursError,
    StageError,
    TransientStageError,
    disk_is_full,
)
from pipeline.keys import size_limit_of, thumbnail_key
from pipeline.media.pictures import place_beside
from pipeline.media.reader import Limits
from pipeline.stages import STAGES
from pipeline.stages.base import Context, Stage, StageOutput
from pipeline.workflows import STAGES_OF, StageName, WorkflowType
from tasks import dispatch
from tasks.heart import get_heart
from tasks.runtime import Runtime, get_runtime

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Seconds for which a finished stage tries to reach a database that is away; its lease is renewed meanwhile
#: where that is possible, and after an outage the steward lets every lease live for one lease more.
SETTLE_PATIENCE = 120.0


def register(app: Celery) -> None:
    """Give ``app`` one task a stage. A failure is the stage's own error, already settled: no traceback."""
    for name in StageName:
        app.task(
            deliver,
            bind=True,
            name=dispatch.task_name(name),
            throws=(DailiesError,),
            shared=False,
            Request="tasks.worker:Request",
        )


def deliver(task: Task, row_id: object, schema: object = dispatch.SCHEMA, *_: Any) -> str:
    """One delivery of one message: do what the row says. Returns what was done, for the worker's log."""
    with bound_contextvars(row_id=str(row_id), task=task.name):
        try:
            with guarded():
                # The version first: what the rest of a newer message means is for newer workers to say.
                if dispatch.is_newer(schema):
                    return _leave_to_newer(get_runtime(), task)
                return _deliver(get_runtime(), row_id)
        except InfrastructureError as error:
            # The row could not be asked, or not be told. The message comes back; the row decides again.
            log.warning("delivery_postponed", error=error.message, code=error.code)
            raise Reject(error.message, requeue=True) from error
        except (Retry, Reject, StageError):
            raise  # settled, or to come back: this is how Celery learns of it
        except Exception as error:
            # A mistake of ours, or a migration that has not run yet: never the end of a message.
            log.exception("delivery_raised")
            raise Reject(str(error), requeue=True) from error


def _leave_to_newer(runtime: Runtime, task: Task) -> str:
    if dispatch.leave_to_newer(runtime.sessions, task.request):
        raise Retry(message="the message is of a newer release", when=dispatch.NEWER_SCHEMA_DELAY)
    return "dropped"


def _deliver(runtime: Runtime, told: object) -> str:
    try:
        row_id = UUID(str(told))
    except ValueError:
        return _keep_unknown(runtime, told)
    with runtime.sessions.begin() as session:
        answer = queue.claim(session, row_id, worker=runtime.worker, lease=runtime.settings.lease)
    match answer:
        case queue.Claimed():
            with bound_contextvars(job_id=str(answer.job_id), token=answer.token):
                return _work(runtime, answer)
        case queue.Final(successor) if successor is not None:
            dispatch.publish(runtime.sessions, successor)
        case queue.NotDue(published_at=seen) | queue.Leased(published_at=seen):
            dispatch.publish_copy(runtime.sessions, row_id, seen=seen)
        case queue.Overdue():
            # This message has its place at the front of the lane; a new one would go to the end.
            raise Reject("the steward has not judged the row's last lease yet", requeue=True)
        case queue.Unknown():
            return _keep_unknown(runtime, row_id)
    outcome = type(answer).__name__.lower()
    log.info("delivery_needs_no_work", answer=outcome)
    return outcome


def _keep_unknown(runtime: Runtime, row_id: object) -> str:
    error = NotOursError(f"No queue row has the id {row_id}: it was pruned, or is another system's.")
    log.warning("message_not_ours", error=error.message)
    with runtime.sessions.begin() as session:
        queue.keep_foreign(session, source=None, body=str(row_id), error=error)
    dispatch.copy_dead_letters(runtime.sessions, runtime.settings)
    return "unknown"


def _work(runtime: Runtime, claim: queue.Claimed) -> str:
    """Run the claimed stage and settle it. No transaction is open while it runs."""
    stage = STAGES[StageName(claim.job_type)]
    wall, cpu = time.perf_counter(), _cpu_s(runtime)
    with get_heart().beating(claim) as beat:
        found = _outcome(runtime, stage, claim)
        beat.settling = True
        cost = queue.Cost(_ms(wall, time.perf_counter()), _ms(cpu, _cpu_s(runtime)))
        if isinstance(found, DailiesError):
            return _settle_failure(runtime, claim, found, cost)
        return _settle_success(runtime, claim, stage, found, cost)


def _outcome(runtime: Runtime, stage: Stage, claim: queue.Claimed) -> Done | DailiesError:
    """What the stage made, or why it could not."""
    try:
        return perform(runtime, stage, claim)
    except SoftTimeLimitExceeded:
        limit = timedelta(seconds=round(runtime.settings.soft_time_limit.total_seconds()))
        return TransientStageError(
            f"{stage.name} did not finish within {limit}; the file may be too large for this worker.",
            code="TIME_LIMIT_EXCEEDED",
        )
    except DailiesError as error:
        return error
    except Exception as error:
        log.exception("stage_raised", stage=stage.name)
        return _unexpected(stage, error)


def _cpu_s(runtime: Runtime) -> float:
    """CPU time of this process and of its decoder."""
    return time.process_time() + runtime.decoder.cpu_s


def _ms(start: float, end: float) -> int:
    return round((end - start) * 1000)


def perform(runtime: Runtime, stage: Stage, claim: queue.Claimed) -> Done:
    """Fetch the file, run the stage, store its renditions under keys that carry the token."""
    try:
        return _perform(runtime, stage, claim)
    except OSError as error:
        full = disk_is_full(error)
        if full is None:
            raise
        raise full from error


def _perform(runtime: Runtime, stage: Stage, claim: queue.Claimed) -> Done:
    settings, asset = runtime.settings, claim.asset
    scratch = Path(settings.spool_dir) / "work"
    scratch.mkdir(parents=True, exist_ok=True)
    limit = size_limit_of(asset.key, int(settings.upload_limit))
    pictured = StageName.THUMBNAILS in STAGES_OF[WorkflowType(claim.workflow)]
    lent = runtime.spool.lend(runtime.store, asset, limit) if stage.needs_file else nullcontext()
    with TemporaryDirectory(dir=scratch, prefix=f"{claim.token}-") as folder, lent as file:
        context = Context(
            file=file,
            workdir=Path(folder),
            primary=place_beside(file.path) if file and pictured else None,
            config=claim.config,
            size_limit=limit,
            limits=Limits(pixels=settings.image_pixel_limit),
            jpeg_quality=settings.jpeg_quality,
        )
        run = partial(runtime.decoder.run, stage) if stage.decodes else stage.run
        output = run(asset, context)
        stored = _store(runtime, claim, output)
    return Done(asset, output.value, output.warnings, stored)


def _store(runtime: Runtime, claim: queue.Claimed, output: StageOutput) -> tuple[Stored, ...]:
    entity_type, entity_id = effects.entity_of(claim.asset)
    stored = []
    for rendition in output.renditions:
        key = thumbnail_key(
            entity_type=entity_type,
            entity_id=entity_id,
            variant=rendition.variant,
            fingerprint=rendition.fingerprint,
            token=claim.token,
            extension=rendition.extension,
        )
        runtime.store.put_file(
            runtime.settings.thumbnail_bucket, key, rendition.path, content_type=rendition.content_type
        )
        size = rendition.path.stat().st_size
        stored.append(
            Stored(rendition.variant, key, rendition.width, rendition.height, size, rendition.content_type)
        )
    return tuple(stored)


def _unexpected(stage: Stage, error: Exception) -> TransientStageError:
    return TransientStageError(
        f"{stage.name} met an unexpected {type(error).__name__}: {error}", code="INTERNAL_ERROR"
    )


def _settle(runtime: Runtime, write: Callable[[Session], T]) -> T:
    """Commit what ``write`` does. The work is done: a database that is away for moments should not cost it.

    A commit that did arrive, though its answer did not, answers ``Fenced`` the second time.
    """
    wait, patience = 0.25, time.monotonic() + SETTLE_PATIENCE
    late: InfrastructureError | None = None
    while True:
        try:
            if late is not None:
                log.warning("settle_postponed", error=late.message, again_in_s=wait)
                time.sleep(wait)
                wait = min(wait * 2, 5.0)
            with guarded(), runtime.sessions.begin() as session:
                return write(session)
        except SoftTimeLimitExceeded:
            continue  # that was for the work, which is done; the hard limit still stands
        except InfrastructureError as error:
            if time.monotonic() + wait > patience:
                raise
            late = error


def _settle_success(
    runtime: Runtime, claim: queue.Claimed, stage: Stage, done: Done, cost: queue.Cost
) -> str:
    def complete(session: Session) -> queue.Settled | queue.Fenced:
        return queue.complete(
            session,
            claim,
            effect=lambda inner: effects.apply(inner, stage.name, done),
            result=done.value.model_dump(mode="json"),
            version=stage.version,
            warnings=done.warnings,
            cost=cost,
        )

    try:
        outcome = _settle(runtime, complete)
    except InfrastructureError:
        raise
    except StageError as error:
        return _settle_failure(runtime, claim, error, cost)
    except Exception as error:
        log.exception("effect_raised", stage=stage.name)
        return _settle_failure(runtime, claim, _unexpected(stage, error), cost)
    match outcome:
        case queue.Settled(successor):
            log.info("stage_completed", stage=stage.name, ms=cost.duration_ms, cpu_ms=cost.cpu_ms)
            if successor is not None:
                dispatch.publish(runtime.sessions, successor)
            return "completed"
        case queue.Fenced():
            log.warning("stage_fenced", stage=stage.name)
            return "fenced"


def _settle_failure(runtime: Runtime, claim: queue.Claimed, error: DailiesError, cost: queue.Cost) -> str:
    outcome = _settle(runtime, lambda session: queue.fail(session, claim, error, runtime.policy, cost=cost))
    match outcome:
        case queue.Again(delay):
            wait = delay.total_seconds()
            log.warning("stage_retrying", error=error.message, code=error.code, retry_in_s=wait)
            dispatch.publish(runtime.sessions, claim.row_id)
            raise Retry(exc=error, when=wait)
        case queue.GaveUp(successor=successor):
            if successor is None:
                log.error("stage_failed", error=error.message, code=error.code)
                dispatch.copy_dead_letters(runtime.sessions, runtime.settings)
            else:
                log.warning("stage_left_out", error=error.message, code=error.code)
                dispatch.publish(runtime.sessions, successor)
            raise error
        case queue.Fenced():
            log.warning("stage_fenced", error=error.message, code=error.code)
            return "fenced"
