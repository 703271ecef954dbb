"""The drift between rows, messages and objects, and mending it now, before the steward comes to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from db import audit, queue, reconcile
from db.reconcile import SAMPLES, Found
from db.session import Session, guarded
from pipeline.errors import InfrastructureError, StageError
from pipeline.queues import LANES
from tasks.queues import SQS_ERRORS, queues_of
from tasks.runtime import Runtime
from tasks.scan import BucketScan, OrphanSweep
from tasks.steward import OVERTAKEN_BY, Steward, attempt
from tasks.sweep import stale_queues
from tasks.topology import Topology

AWAY = (InfrastructureError, StageError, *SQS_ERRORS)


class Finding(BaseModel):
    """One kind of drift."""

    model_config = ConfigDict(frozen=True)

    kind: str
    count: int  #: at least so many when ``more``
    more: bool
    samples: tuple[str, ...]  #: a few ids, keys or sentences
    what: str
    mended_by: str
    drift: bool = True  #: false for what somebody wants to be so


class Drift(BaseModel):
    """Everything that was found."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...]
    cut: tuple[str, ...]  #: what was not, or not wholly, looked at, and why
    seconds: float

    @property
    def clean(self) -> bool:
        """Nothing has to be mended, as far as was looked."""
        return not any(finding.drift for finding in self.findings)


class Mended(BaseModel):
    """What the steps did."""

    model_config = ConfigDict(frozen=True)

    steps: dict[str, int]
    failed: dict[str, str]  #: step: why
    seconds: float


STEWARD = "the steward, within seconds"
KINDS: dict[str, tuple[str, str]] = {
    "lease_expired": (
        "Rows whose lease ended without a word, not judged yet.",
        "the steward; after an outage it waits for one lease, so that workers can say that they live",
    ),
    "unpublished": ("Due rows that nobody was told of.", STEWARD),
    "message_lost": ("Due rows whose message is not on the way any more.", STEWARD),
    "paused": ("Due rows in lanes that are paused.", "resuming the lane"),
    "letter_without_copy": ("Dead letters of which SQS has no copy.", STEWARD),
    "job_disagrees": ("Jobs whose status is not what their rows say.", "retrying or cancelling the job"),
    "topology": ("Queues, policies or notifications that are not as they should be.", STEWARD),
    "stale_queue": ("Queues of captures and inspections that nobody polls.", "the steward, within minutes"),
    "object_without_item": (
        "Objects that no media item stands for: their events were lost.",
        "the steward's next listing of the bucket",
    ),
    "item_without_object": (
        "Media items whose object is gone: its removal was not heard of.",
        "the steward's next listing of the bucket",
    ),
    "orphaned_picture": ("Pictures that nothing points at.", "the steward's next listing of the bucket"),
}


def drift(runtime: Runtime, *, patience: float = 10.0) -> Drift:
    """Look at everything and change nothing; listings go on for ``patience`` seconds each, at most.

    Raises InfrastructureError when the database does not answer; what else does not is in ``cut``.
    """
    begun, cut = time.monotonic(), []
    findings: list[Finding] = []
    with guarded():
        with runtime.sessions() as session:
            findings += _rows(runtime, session)
        looks: dict[str, Callable[[Runtime], list[str]]] = {
            "message_lost": _lost_messages,
            "topology": _topology,
            "stale_queue": lambda runtime: stale_queues(runtime.settings, runtime.sessions),
        }
        for kind, look in looks.items():
            try:
                findings += _finding(kind, _of(look(runtime)))
            except AWAY as error:
                cut.append(f"{kind}: {error}")
        for listed in (_objects, _pictures):
            findings += listed(runtime, patience, cut)
    return Drift(findings=tuple(findings), cut=tuple(cut), seconds=time.monotonic() - begun)


def _rows(runtime: Runtime, session: Session) -> list[Finding]:
    wait = runtime.settings.lost_after
    return [
        *_finding("lease_expired", reconcile.lease_expired(session, wait=wait)),
        *_finding("unpublished", reconcile.unpublished(session, wait=wait)),
        *_finding("paused", reconcile.in_paused_lanes(session), drift=False),
        *_finding("letter_without_copy", reconcile.letters_without_copy(session, wait=wait)),
        *_finding("job_disagrees", reconcile.jobs_that_disagree(session)),
    ]


def _lost_messages(runtime: Runtime) -> list[str]:
    lost: list[str] = []
    for lane in LANES:
        with runtime.sessions() as session:
            waiting = queue.waiting_since(
                session, lane, wait=runtime.settings.lost_after, limit=reconcile.MOST
            )
            passed = queue.overtaken(session, lane, margin=OVERTAKEN_BY, limit=reconcile.MOST)
        empty = bool(waiting) and queues_of(runtime.settings).waiting(lane) == 0
        lost += [str(row_id) for row_id, _ in (waiting if empty else passed)]
    return lost


def _topology(runtime: Runtime) -> list[str]:
    return [one.what for one in Topology(runtime.settings).survey().differences]


def _objects(runtime: Runtime, patience: float, cut: list[str]) -> list[Finding]:
    scan = BucketScan(runtime)
    strange: list[str] = []
    gone: list[str] = []

    def look(after: str) -> str | None:
        page = scan.differences(after)
        strange.extend(one.key for one in page.strange)
        gone.extend(page.gone)
        return page.upto

    _list("objects", look, patience, cut)
    return [*_finding("object_without_item", _of(strange)), *_finding("item_without_object", _of(gone))]


def _pictures(runtime: Runtime, patience: float, cut: list[str]) -> list[Finding]:
    sweep = OrphanSweep(runtime)
    found: list[str] = []

    def look(after: str) -> str | None:
        orphans, upto = sweep.orphans(after)
        found.extend(orphans)
        return upto

    _list("pictures", look, patience, cut)
    return _finding("orphaned_picture", _of(found))


def _list(what: str, look: Callable[[str], str | None], patience: float, cut: list[str]) -> None:
    """Look at page after page, until there is none, or for ``patience`` seconds."""
    end = time.monotonic() + patience
    after: str | None = ""
    while after is not None:
        try:
            after = look(after)
        except AWAY as error:
            cut.append(f"{what}: {error}")
            return
        if after is not None and time.monotonic() > end:
            cut.append(f"{what}: the listing was cut after {patience:g} s, behind {after!r}")
            return


def _of(found: Iterable[str]) -> Found:
    names = list(found)
    return Found(len(names), more=False, samples=tuple(names[:SAMPLES]))


def _finding(kind: str, found: Found, *, drift: bool = True) -> list[Finding]:
    if not found.count:
        return []
    what, mended_by = KINDS[kind]
    return [
        Finding(
            kind=kind,
            count=found.count,
            more=found.more,
            samples=found.samples,
            what=what,
            mended_by=mended_by,
            drift=drift,
        )
    ]


def mend(runtime: Runtime, *, actor: str, reason: str = "", patience: float = 60.0) -> Mended:
    """Run every step of the steward now, with whole listings of the buckets; who asked is in the audit log.

    Safe beside a steward that runs. Each of the two listings ends after ``patience`` seconds and is gone on
    with by the steward. Leases are judged only where a steward has watched the database without a gap.
    """
    begun = time.monotonic()
    steward = Steward(runtime)
    house = steward.housekeeping
    house.scan.progress.ask()
    house.orphans.progress.ask()
    steps: dict[str, Callable[[], int]] = {
        "release_expired": lambda: steward.release_expired(watch=False),
        **steward.crews[1],
        **steward.crews[2],
        "scan_bucket": lambda: house.scan.run(patience=patience)[0],
        "sweep_orphans": lambda: house.orphans.run(patience=patience)[0],
    }
    done: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name, step in steps.items():
        outcome = attempt(name, step)
        if isinstance(outcome, int):
            done[name] = outcome
        else:
            failed[name] = outcome
    with guarded(), runtime.sessions.begin() as session:
        audit.record(
            session,
            entity_type="system",
            entity_id=uuid4(),
            action="reconciled",
            actor=actor,
            details={"reason": reason, "steps": done, "failed": failed},
        )
    return Mended(steps=done, failed=failed, seconds=time.monotonic() - begun)
