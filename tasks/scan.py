"""Comparing the buckets with the tables, a page at a time: lost events, lost objects, orphaned pictures.

A pass over a bucket goes on where it was, in any steward: how far it is, is a mark in the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from db import events, listing, marks
from db.session import guarded
from pipeline.errors import DailiesError, InfrastructureError, ObjectMissingError
from pipeline.events import Change, ObjectEvent
from pipeline.keys import MAX_KEY_BYTES, parse_thumbnail_key
from pipeline.storage import ListedObject
from tasks import dispatch
from tasks.runtime import Runtime

log = structlog.get_logger(__name__)

#: An object that is younger has an event that may still be on its way.
YOUNG = timedelta(seconds=60)
#: Living items in a bucket without a single object, from which on the bucket counts as lost, not as emptied.
SUSPICIOUS = 100
AT_ONCE, ONCE_MORE = "at-once", "once-more"  #: what a pass that was asked for says in its mark


EMPTY_ADVICE = "The bucket lists nothing at all; no item is ended for it. Delete the items if that is meant."


@dataclass(frozen=True, slots=True)
class Page:
    """What a page of the listing and the tables disagree about."""

    strange: tuple[ListedObject, ...]  #: no living item has these bytes at this key
    gone: tuple[str, ...]  #: keys of living items at which the listing has nothing
    upto: str | None  #: the key to go on after; None: nothing follows


class Pass:
    """One kind of pass over one bucket: when it is due, and how far it is."""

    def __init__(self, runtime: Runtime, mark: str) -> None:
        self._runtime = runtime
        self._mark = mark

    def due(self) -> bool:
        """Whether a pass is under way, was asked for, or was begun long enough ago."""
        with self._runtime.sessions() as session:
            mark, age = marks.get(session, self._mark), marks.age(session, self._mark)
        every = self._runtime.settings.bucket_scan_every
        if mark is None or age is None or _under_way(mark.value):
            return True
        return age >= min(every, YOUNG if mark.value == ONCE_MORE else every)

    def ask(self) -> None:
        """Begin a pass at the next opportunity, from the start.

        One that was asked for and is under way goes on: whoever asks again and again would never see its end,
        and what it has passed by is found by the pass that follows it.
        """
        with self._runtime.sessions.begin() as session:
            mark = marks.get(session, self._mark)
            if mark is None or not mark.value.startswith(f"{AT_ONCE}:"):
                marks.put(session, self._mark, f"{AT_ONCE}:")

    def run(self, work: Callable[[str, bool], tuple[int, str | None]], patience: float) -> tuple[int, bool]:
        """Do pages until the pass or ``patience`` (seconds) ends; the sum, and whether it has ended.

        ``work`` is given the key to go on after, and whether events are known to be lost; it returns how much
        it did, and the next such key, or None at the end.
        """
        total, end = 0, time.monotonic() + patience
        while True:
            seen = self._read()
            kind, _, after = seen.partition(":") if seen and _under_way(seen) else ("", "", "")
            done, upto = work(after, kind == AT_ONCE)
            total += done
            if upto is None:
                # What was asked for because events were lost is looked at once more, for the stragglers.
                if self._move(ONCE_MORE if kind == AT_ONCE else "", seen):
                    return total, True
            else:
                self._move(f"{kind}:{upto}", seen)
            if time.monotonic() > end:
                return total, False

    def _read(self) -> str | None:
        with self._runtime.sessions() as session:
            mark = marks.get(session, self._mark)
        return None if mark is None else mark.value

    def _move(self, value: str, seen: str | None) -> bool:
        """Remember how far the pass is, unless another was asked for meanwhile."""
        with self._runtime.sessions.begin() as session:
            return marks.move(session, self._mark, value, seen=seen)


def _under_way(value: str) -> bool:
    return ":" in value


class BucketScan:
    """Objects that have no media item, because their event was lost, and items whose object is gone."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._bucket = runtime.settings.storage_bucket
        settings = runtime.settings
        self._budgets = events.Budgets(max_attempts=settings.max_attempts, max_crashes=settings.max_crashes)
        self.progress = Pass(runtime, marks.SCAN_OBJECTS)

    def run(self, *, patience: float) -> tuple[int, bool]:
        """Repair what is found within ``patience`` seconds; how much, and whether the pass has ended."""
        return self.progress.run(self._page, patience)

    def differences(self, after: str, *, at_once: bool = False) -> Page:
        """Compare one page. Raises what the object store raises."""
        page = self._runtime.store.list_page(self._bucket, after=after)
        upto = None if page.last or not page.objects else page.objects[-1].key
        with self._runtime.sessions() as session:
            living = listing.living_between(session, self._bucket, after, upto)
            if len(living) == listing.ITEMS:
                upto = living[-1].key
            listed = [one for one in page.objects if upto is None or one.key.encode() <= upto.encode()]
            etags = {(item.key, item.etag) for item in living}
            strange = [
                one
                for one in listed
                if (one.key, one.etag) not in etags
                and (at_once or page.now - one.modified >= YOUNG)
                and _is_usable(one.key)
            ]
            ended = listing.ended(session, self._bucket, {one.key for one in strange})
        # Of what ended long ago only the newest is known: an older object has come back, whatever its ETag.
        long_ago = page.now - self._runtime.settings.keep_ended_items
        strange = [
            one
            for one in strange
            if not any(
                at >= one.modified and (etag == one.etag or (etag is not None and one.modified < long_ago))
                for etag, at in ended.get(one.key, ())
            )
        ]
        there = {one.key for one in page.objects}
        gone = [item.key for item in living if item.key not in there]
        if not after and page.last and not page.objects and len(gone) > SUSPICIOUS:
            log.error("bucket_lost", bucket=self._bucket, items=len(gone), advice=EMPTY_ADVICE)
            gone = []
        return Page(tuple(strange), tuple(dict.fromkeys(gone)), upto)

    def _page(self, after: str, at_once: bool) -> tuple[int, str | None]:  # noqa: FBT001 - called by Pass
        page = self.differences(after, at_once=at_once)
        done = sum(_alone(one.key, partial(self._adopt, one)) for one in page.strange)
        return done + sum(_alone(key, partial(self._drop, key)) for key in page.gone), page.upto

    def _adopt(self, found: ListedObject) -> bool:
        """Treat an object that no item stands for as if its event had come."""
        with self._runtime.sessions() as session:
            before = events.seen(session, self._bucket, found.key)
        store = self._runtime.store
        try:
            info = store.head(self._bucket, found.key)
        except ObjectMissingError:
            return False  # deleted since the listing
        older = store.older_versions(self._bucket, found.key) if info.version_id else []
        event = ObjectEvent(
            change=Change.CREATED,
            bucket=self._bucket,
            key=found.key,
            version_id=info.version_id or "",
            size=info.size,
            etag=info.etag,
        )
        with self._runtime.sessions.begin() as session:
            applied = events.adopt(session, event, self._budgets, before=before, older=older)
        if applied.job_id is None:
            return False
        log.warning("event_was_lost", key=found.key, media_item_id=str(applied.media_item_id))
        dispatch.publish_job(self._runtime.sessions, applied.job_id)
        return True

    def _drop(self, key: str) -> bool:
        """Treat an item whose object is gone as removed."""
        with self._runtime.sessions() as session:
            before = events.seen(session, self._bucket, key)
        if self._runtime.store.exists(self._bucket, key):
            return False  # uploaded since the listing
        with self._runtime.sessions.begin() as session:
            applied = events.drop(session, self._bucket, key, before=before)
        log.warning("object_is_gone", key=key, what=applied.what)
        return applied.what == "removed"


class OrphanSweep:
    """Pictures that nothing points at and nothing ever will."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._bucket = runtime.settings.thumbnail_bucket
        self.progress = Pass(runtime, marks.SCAN_PICTURES)

    def run(self, *, patience: float) -> tuple[int, bool]:
        """Delete what is found within ``patience`` seconds; how much, and whether the pass has ended."""
        return self.progress.run(self._page, patience)

    def orphans(self, after: str) -> tuple[list[str], str | None]:
        """The orphans of one page, and the key to go on after; None at the end."""
        page = self._runtime.store.list_page(self._bucket, after=after)
        tokens = {
            one.key: parsed.token
            for one in page.objects
            if page.now - one.modified >= self._runtime.settings.orphan_age
            if (parsed := parse_thumbnail_key(one.key)) is not None
        }
        with self._runtime.sessions() as session:
            found = listing.orphans(session, tokens) if tokens else []
        return found, None if page.last or not page.objects else page.objects[-1].key

    def _page(self, after: str, _at_once: bool) -> tuple[int, str | None]:  # noqa: FBT001 - called by Pass
        found, upto = self.orphans(after)
        return (self._runtime.store.delete_many(self._bucket, found) if found else 0), upto


def _alone(key: str, repair: Callable[[], bool]) -> bool:
    """What ``repair`` returns. An object that S3 or our tables refuse keeps no other from its turn."""
    try:
        with guarded():
            return repair()
    except InfrastructureError:
        raise  # the others would fare no better: the page is looked at again
    except DailiesError as error:
        log.warning("object_left", key=key, error=error.message)
    except Exception:
        log.exception("object_left", key=key)
    return False


def _is_usable(key: str) -> bool:
    """Whether a row can carry the key."""
    return "\0" not in key and len(key.encode()) <= MAX_KEY_BYTES
