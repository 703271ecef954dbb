"""What becomes of uploads, watched through the API until every file is final."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.client import Api
from cli.uploads import PREFIX, Upload, put
from pipeline.settings import Settings
from pipeline.states import JOB_FINAL
from pipeline.workflows import STAGES_OF, WorkflowType

STAGES = STAGES_OF[WorkflowType.INGEST]
POLL_S = 0.25
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
    with _progress(console) as progress:
        bars = _Bars(progress, len(uploads), api)

        def uploaded(upload: Upload) -> None:
            tick()
            bars.show_uploaded(upload)

        put(uploads, settings, uploaded)
        listing = _Listing(api, {(one.key, one.version_id) for one in uploads if one.error is None})
        while True:
            tick()
            done = listing.refresh(urgent=bars.refresh())
            bars.show_done(done)
            if done == listing.awaited or (limit is not None and time.monotonic() > limit):
                return listing.items
            time.sleep(POLL_S)


class _Listing:
    """The items waited for, asked for as often as it may cost."""

    def __init__(self, api: Api, waited: set[tuple[str, str]]) -> None:
        self.items: Items = {}
        self.awaited = len(waited)
        self._api, self._waited = api, waited
        self._next = 0.0

    def refresh(self, *, urgent: bool) -> int:
        """How many are final, as far as known; ``urgent`` when all of them should be."""
        started = time.monotonic()
        if urgent or started >= self._next:
            for item in self._api.pages("media-items", key_prefix=PREFIX):
                if (item["key"], item["version_id"]) in self._waited:
                    self.items[item["key"]] = item
            took = time.monotonic() - started
            self._next = started + took / LISTING_SHARE
        return sum(1 for item in self.items.values() if is_final(item))


def is_final(item: dict[str, Any]) -> bool:
    """Whether the newest job of a media item is over."""
    job = item["latest_job"]
    return job is not None and job["status"] in JOB_FINAL


class _Bars:
    """One bar for all, one for each stage, fed by ``GET /queue/stats``."""

    def __init__(self, progress: Progress, total: int, api: Api) -> None:
        self._progress, self._api, self._total = progress, api, total
        self._rows_before = self._stats()["total"]
        self._done = progress.add_task("[bold]files done", total=total)
        self._uploaded = progress.add_task("  uploaded", total=total)
        self._stages = {stage: progress.add_task(f"  {stage}", total=total) for stage in STAGES}

    def refresh(self) -> bool:
        """Show how far each stage is; returns whether every upload's job seems to be over."""
        stats = self._stats()
        created = (stats["total"] - self._rows_before) // len(STAGES)
        for stage, bar in self._stages.items():
            waiting = sum(stats["by_job_type"].get(stage, {}).values())
            self._progress.update(bar, completed=min(max(created - waiting, 0), self._total))
        return created >= self._total and not stats["living"]

    def show_uploaded(self, upload: Upload) -> None:
        """One more file was uploaded, or could not be and is not waited for."""
        if upload.error is None:
            self._progress.advance(self._uploaded)
        else:
            self._total -= 1
            for bar in self._progress.task_ids:
                self._progress.update(bar, total=self._total)
        self.refresh()

    def show_done(self, done: int) -> None:
        """Files that are final."""
        self._progress.update(self._done, completed=done)

    def _stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self._api.get("queue/stats")["data"]
        return stats


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", justify="left"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
