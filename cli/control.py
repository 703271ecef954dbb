"""What people may do to jobs and lanes."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cli.client import Api
from cli.console import make_console
from cli.options import DEFAULT_STATE, JsonOption, StateOption, join
from cli.orders import (
    CodeOption,
    DryRunOption,
    ReasonOption,
    SinceOption,
    StageOption,
    UntilOption,
    YesOption,
    confirm,
    in_pages,
    order,
    progress,
    refused_shown,
)
from cli.queries import job_table
from cli.tables import show, table

app = typer.Typer()
PANEL = "Control: each is in the audit log with who and why"
JobArgument = Annotated[str, typer.Argument(help="The job's id, as `dailies jobs` shows it.")]
LaneArgument = Annotated[str, typer.Argument(help="express, standard, bulk or heavy.")]


@app.command(rich_help_panel=PANEL)
def cancel(
    job_id: JobArgument,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """End a job: what waits at once, what runs within seconds."""
    job = join(state).post(f"jobs/{job_id}/cancel", order(reason))["data"]
    show(job, job_table(job), as_json=as_json)


@app.command(rich_help_panel=PANEL)
def retry(
    job_id: Annotated[str | None, typer.Argument(help="This one; unless given, by the filters.")] = None,
    *,
    from_stage: Annotated[
        str | None, typer.Option("--from", help="The stage to start from; the first that is not done.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="failed or cancelled.")] = None,
    error_code: CodeOption = None,
    stage: StageOption = None,
    key: Annotated[str | None, typer.Option(help="Only files whose key begins so.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Start a job that has ended again, or all that the filters find. Exit 1 when one could not be."""
    only = {"status": status, "error_code": error_code, "stage": stage, "key_prefix": key,
            "created_since": since, "created_until": until}  # fmt: skip
    filtered = any(value is not None for value in only.values())
    if (job_id is None) != filtered:
        raise typer.BadParameter("give a job's id, or a filter such as --status failed, and not both")
    api = join(state)
    if job_id is not None and not dry_run:
        job = api.post(f"jobs/{job_id}/retry", order(reason, stage=from_stage))["data"]
        show(job, job_table(job), as_json=as_json)
        return
    if job_id is not None:
        raise typer.BadParameter("--dry-run is for filters; one job is shown by `dailies jobs ID`")
    body = order(reason, from_stage=from_stage, **only)
    many(api, "jobs/retry", body, "Start {} jobs again?", dry_run=dry_run, yes=yes, as_json=as_json)


def many(
    api: Api,
    path: str,
    body: dict[str, object],
    question: str,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Handle what a filter finds, asking before. Exit 1 when one of them was refused."""
    if not (dry_run or yes):
        told = api.post(path, {**body, "dry_run": True, "limit": 1})["metadata"]
        found = told["done"] + told["refused"] + told["remaining"]
        if not found:
            make_console().print("There is none.")
            return
        number = f"more than {told['remaining']:,}" if told["remaining_more"] else found
        confirm(question.format(number), yes=yes)
    entries = in_pages(api, path, {**body, "dry_run": dry_run}, told=None if as_json else progress)
    show(entries, _bulk_table(entries, dry_run=dry_run), as_json=as_json)
    if any(entry["refused"] for entry in entries):
        raise typer.Exit(1)


def _bulk_table(entries: list[dict[str, Any]], *, dry_run: bool) -> Table:
    names = [name for name in ("dead_letter_id", "job_id") if any(name in entry for entry in entries)]
    refused = sum(entry["refused"] is not None for entry in entries)
    word = "would be started again" if dry_run else "started again"
    title = f"{len(entries) - refused} {word}, {refused} refused"
    return table(refused_shown(entries), ["key", *names, "from_stage", "refused"], title=title)


@app.command(rich_help_panel=PANEL)
def priority(
    job_id: JobArgument,
    value: Annotated[int, typer.Argument(help="1 to 10, the most urgent.", min=1, max=10)],
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make a waiting job more or less urgent: it moves to the lane of that priority."""
    job = join(state).post(f"jobs/{job_id}/priority", order(reason, priority=value))["data"]
    show(job, job_table(job), as_json=as_json)


@app.command(rich_help_panel=PANEL)
def pause(lane: LaneArgument, reason: ReasonOption = None, state: StateOption = DEFAULT_STATE) -> None:
    """Start nothing more from a lane until it is resumed, also after a restart."""
    told = join(state).post(f"queues/{lane}/pause", order(reason))["data"]
    word = "is paused" if told["changed"] else "was paused already"
    make_console().print(f"{told['name']} {word}; `dailies queues` shows who paused it and why.")


@app.command(rich_help_panel=PANEL)
def resume(lane: LaneArgument, reason: ReasonOption = None, state: StateOption = DEFAULT_STATE) -> None:
    """Start what waits in a lane again."""
    told = join(state).post(f"queues/{lane}/resume", order(reason))["data"]
    word = (
        f"is resumed: what waits starts now, {told['published']} messages sent"
        if told["changed"]
        else "was not paused"
    )
    make_console().print(f"{told['name']} {word}.")
