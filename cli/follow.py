"""What becomes of uploads, watched through the API until every file is final."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.client import Api
from cli.uploads import PREFIX, Upload, put
from pipeline.errors import DailiesError, InfrastructureError
from pipeline.settings import Settings
from pipeline.states import JOB_FINAL, JobStatus

POLL_S = 0.25
LONG_AGO = datetime.min.replace(tzinfo=UTC)
CLOCKS_DIFFER = timedelta(minutes=10)  #: of the machines that give items their ids, by which they are ordered
PATIENCE_S = 5.0  #: without a change, before somebody is told why
AWAY_S = 60.0  #: that the API may be away, as when it is started again
#: Seconds until an upload of an item's own bytes, which gets no item of its own, is asked for by its key.
UNSEEN_S = 2.0
BY_KEY = 50  #: so many at once
LISTING_SHARE = 0.05  #: of the time may go into asking for all items: it costs the API what the workers need

#: key -> the media item, as ``GET /media-items`` tells it
Items = dict[str, dict[str, Any]]


def upload_and_follow(
    api: Api,
    uploads: list[Upload],
    settings: Settings,
    *,
    console: Console,
    tick: Callable[[], None],
    timeout: float | None = None,
) -> Items:
    """Upload and show progress until every file is final, or ``timeout`` (seconds) is over.

    ``tick`` is called a few times a second. Returns the media items as they are then.
    """
    limit = time.monotonic() + timeout if timeout is not None else None
    listing, watch, patience = _Listing(api), _Watch(api, console), _Patience(console)
    with _progress(console) as progress:
        bars = _Bars(progress, len(uploads))

        def uploaded(upload: Upload) -> None:
            tick()
            bars.show_uploaded(upload)
            if upload.error is None:
                listing.wait_for(upload)
            patience.asking(listing.refresh)
            bars.show(listing)

        def look() -> None:
            listing.refresh()
            watch.look(listing)

        put(uploads, settings, uploaded)
        while True:
            tick()
            patience.asking(look)
            bars.show(listing)
            if not listing.open or (limit is not None and time.monotonic() > limit):
                return listing.items
            time.sleep(POLL_S)


class _Patience:
    """Bears with an API that is away for a while: what was uploaded is in the bucket."""

    def __init__(self, console: Console, *, seconds: float = AWAY_S) -> None:
        self._console, self._seconds = console, seconds
        self._away_since: float | None = None

    def asking(self, ask: Callable[[], None]) -> None:
        """Ask now; that nobody answers is an error after ``seconds`` only.

        ``ask`` must ask if it raised the last time: what returns without asking is taken for an answer.
        """
        try:
            ask()
        except InfrastructureError:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                self._console.print("[yellow]The API does not answer. What was uploaded is safe.[/]")
            elif now - self._away_since > self._seconds:
                raise
        else:
            self._away_since = None


class _Listing:
    """The items waited for. What it asks for does not grow with what was there before.

    All of them are listed as often as that may cost. In between one is asked for, the newest that is not
    final: when it is, most of the others are, and all are listed again.
    """

    def __init__(self, api: Api) -> None:
        self.items: Items = {}
        self._api = api
        self._waited: dict[tuple[str, str], float] = {}  # key and version, when last looked for
        self._next = 0.0
        self._watched: str | None = None
        newest = api.get("media-items", limit=1)["data"]
        #: From here on everything is older than the uploads.
        self._older = _created(newest[0]) - CLOCKS_DIFFER if newest else LONG_AGO

    def wait_for(self, upload: Upload) -> None:
        """Wait for one more."""
        self._waited[upload.key, upload.version_id] = time.monotonic()
        if not upload.version_id:  # without versions an object that is replaced keeps its item, however old
            self._older = LONG_AGO

    @property
    def open(self) -> int:
        """How many are not final, as far as known."""
        return len(self._waited) - self.count(is_final)

    def count(self, which: Callable[[dict[str, Any]], bool]) -> int:
        """How many of the items that are known are so."""
        return sum(1 for item in self.items.values() if which(item))

    def refresh(self) -> None:
        """Ask for one, or for all when that is due."""
        if not self.open or (time.monotonic() < self._next and not self._watched_is_over()):
            return
        started = time.monotonic()
        for item in self._api.pages("media-items", key_prefix=PREFIX):
            if _created(item) < self._older:
                break
            self._meet(item)
        self._ask_by_key()
        took = time.monotonic() - started
        self._next = started + max(took / LISTING_SHARE, POLL_S)
        not_final = (item["id"] for item in self.items.values() if not is_final(item))
        self._watched = max(not_final, default=None)

    def _meet(self, item: dict[str, Any]) -> bool:
        met = (item["key"], item["version_id"]) in self._waited
        if met:
            self.items[item["key"]] = item
        return met

    def _ask_by_key(self) -> None:
        """Look for what was uploaded with the bytes that it had: its item is as old as those."""
        before = time.monotonic() - UNSEEN_S
        unseen = [
            upload for upload, at in self._waited.items() if upload[0] not in self.items and at < before
        ]
        for upload in sorted(unseen, key=self._waited.__getitem__)[:BY_KEY]:
            self._waited[upload] = time.monotonic()
            any(self._meet(item) for item in self._api.pages("media-items", key_prefix=upload[0]))

    def _watched_is_over(self) -> bool:
        if self._watched is None:
            return False
        try:
            return is_final(self._api.get(f"media-items/{self._watched}")["data"])
        except InfrastructureError:
            raise
        except DailiesError:  # it was deleted
            return True


class _Watch:
    """Says why nothing moves, where the lanes know, each thing once."""

    def __init__(self, api: Api, console: Console) -> None:
        self._api, self._console = api, console
        self._said: set[str] = set()
        self._last: Items = {}
        self._next = time.monotonic() + PATIENCE_S

    def look(self, listing: _Listing) -> None:
        """Look at the lanes if nothing has changed for a while."""
        if listing.items != self._last:
            self._last, self._next = dict(listing.items), time.monotonic() + PATIENCE_S
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PATIENCE_S
        for lane in self._api.get("queues")["data"]:
            reason = _why_it_stands(lane)
            if reason and reason not in self._said:
                self._said.add(reason)
                self._console.print(f"[yellow]{escape(reason)}[/]", soft_wrap=True)


def _why_it_stands(lane: dict[str, Any]) -> str | None:
    """Why what is due in a lane does not start, or None."""
    if not lane["due"]:
        return None
    if paused := lane["paused"]:
        why = f" ({paused['reason']})" if paused["reason"] else ""
        return f"{lane['name']} was paused by {paused['by']}{why}: `dailies resume {lane['name']}` goes on."
    if not lane["workers"]:
        return f"No worker serves {lane['name']}: `dailies workers` and `dailies ps` tell more."
    return None


def _created(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["created_at"])


def is_final(item: dict[str, Any]) -> bool:
    """Whether the newest job of a media item is over."""
    job = item["latest_job"]
    return job is not None and job["status"] in JOB_FINAL


def is_started(item: dict[str, Any]) -> bool:
    """Whether a worker has begun with the newest job of a media item."""
    job = item["latest_job"]
    return job is not None and job["status"] != JobStatus.QUEUED


class _Bars:
    """How many files are uploaded, started, done."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._done = progress.add_task("[bold]files done", total=total)
        self._uploaded = progress.add_task("  uploaded", total=total)
        self._started = progress.add_task("  started", total=total)

    def show_uploaded(self, upload: Upload) -> None:
        """One more file was uploaded, or could not be and is not waited for."""
        if upload.error is None:
            self._progress.advance(self._uploaded)
        else:
            self._total -= 1
            for bar in self._progress.task_ids:
                self._progress.update(bar, total=self._total)

    def show(self, listing: _Listing) -> None:
        """What is known of the others."""
        self._progress.update(self._started, completed=listing.count(is_started))
        self._progress.update(self._done, completed=listing.count(is_final))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", justify="left"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
