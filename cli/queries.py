"""What the API knows, for people: jobs, queue, search."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.console import make_console
from cli.options import DEFAULT_STATE, JsonOption, StateOption, join
from cli.tables import show, table

app = typer.Typer()
PANEL = "What the API knows, for people"
LimitOption = Annotated[int, typer.Option(help="How many to show.", min=1, max=200)]


@app.command(rich_help_panel=PANEL)
def jobs(
    job_id: Annotated[str | None, typer.Argument(help="Show this one, stage by stage.")] = None,
    *,
    status: Annotated[str | None, typer.Option(help="Only jobs in this status.")] = None,
    key: Annotated[str | None, typer.Option(help="Only files whose key begins so.")] = None,
    error_code: Annotated[str | None, typer.Option(help="Only jobs that failed with this code.")] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show jobs, newest first, or one job with its stages."""
    api = join(state)
    if job_id:
        job = api.get(f"jobs/{job_id}")["data"]
        show(job, job_table(job), as_json=as_json)
        return
    found = api.get("jobs", limit=limit, status=status, key_prefix=key, error_code=error_code)["data"]
    names = ["id", "key", "status", "error_code", "created_at"]
    show(found, table(found, names), as_json=as_json)


@app.command(rich_help_panel=PANEL)
def queue(
    status: Annotated[str | None, typer.Option(help="List rows in this status.")] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show how much there is to do; with --status, the rows themselves."""
    api = join(state)
    if status:
        rows = api.get("queue", limit=limit, status=status)["data"]
        names = [
            "id",
            "job_id",
            "job_type",
            "queue",
            "status",
            "attempts",
            "available_at",
            "worker",
            "error_code",
        ]
        show(rows, table(rows, names), as_json=as_json)
        return
    stats = api.get("queue/stats")["data"]
    lanes = [
        {"queue": lane, "oldest_waiting_s": stats["oldest_waiting_seconds"].get(lane), **counts}
        for lane, counts in stats["by_queue"].items()
    ]
    show(stats, table(lanes, ["queue", "queued", "processing", "retrying", "pending", "oldest_waiting_s"]),
          as_json=as_json)  # fmt: skip
    if not as_json:
        totals = ", ".join(f"{count} {name}" for name, count in stats["by_status"].items() if count)
        make_console().print(f"All rows: {totals or 'none'}")


def _no_options(words: list[str]) -> list[str]:
    """Refuse an option that does not exist: all that begins with a dash comes as a word here."""
    for word in words:
        if word.startswith("--"):
            raise typer.BadParameter(f"no such option: {word}")
    return words


@app.command(rich_help_panel=PANEL, context_settings={"ignore_unknown_options": True})
def search(
    query: Annotated[list[str], typer.Argument(help='Words, "phrases", or, -not.', callback=_no_options)],
    limit: Annotated[int, typer.Option(help="How many to show.", min=1, max=100)] = 20,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Find media items."""
    answer = join(state).get("search", q=" ".join(query), limit=limit)
    hits = answer["data"]["hits"]
    show(answer["data"], table(hits, ["key", "mime_type", "captured_at"]),
          as_json=as_json)  # fmt: skip
    if not as_json:
        make_console().print(f"{answer['metadata']['total']} found")


def job_table(job: dict[str, Any]) -> Table:
    """The stages of a job, as ``GET /jobs/{id}`` tells them."""
    rows = [
        {
            **row,
            "tries": len(row["tries"]),
            "ms": row["tries"][-1]["duration_ms"] if row["tries"] else None,
            "waits because": (row["waiting_because"] or {}).get("message"),
        }
        for row in job["rows"]
    ]
    title = escape(f"{job['key']}: {job['status']} {job['error_message'] or ''}")
    names = ["job_type", "status", "tries", "ms", "worker", "error_code", "waits because"]
    return table(rows, names, title=title)
