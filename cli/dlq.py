"""Dead letters: what was given up on, or was never ours."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from cli.client import Api
from cli.console import make_console
from cli.control import many
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
    who,
)
from cli.tables import show, table
from pipeline.errors import DailiesError

app = typer.Typer(help="What was given up on, or was never ours: look, run it again, put it away.")
IdsArgument = Annotated[list[str] | None, typer.Argument(help="These; unless given, by the filters.")]
FILTERS = "give ids, or a filter (--stage, --error-code, --since, --until), and not both"


@app.command("list")
def list_letters(
    *,
    group: Annotated[bool, typer.Option("--group", help="Count by stage and error code.")] = False,
    which: Annotated[str, typer.Option(help="open, redriven, purged or any.")] = "open",
    stage: StageOption = None,
    error_code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int | None, typer.Option(help="How many to show: 20 letters, or all groups.", min=1, max=200)
    ] = None,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show dead letters, newest first, or how many there are of each kind."""
    api = join(state)
    only = {"state": which, "stage": stage, "error_code": error_code, "since": since, "until": until}
    if group:
        groups = api.get("dlq/groups", **only)["data"][:limit]
        names = ["stage", "error_code", "reason", "count", "last_at", "sample_id", "sample_message"]
        show(groups, table(groups, names), as_json=as_json)
        return
    found = api.get("dlq", limit=limit or 20, **only)["data"]
    names = ["id", "state", "key", "stage", "error_code", "created_at"]
    show(found, table(found, names), as_json=as_json)


@app.command("show")
def show_letter(
    letter_id: Annotated[str, typer.Argument(help="The letter's id, as `dailies dlq list` shows it.")],
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show one dead letter, with the message where it was never ours."""
    letter = join(state).get(f"dlq/{letter_id}")["data"]
    rows = [{"field": name.replace("_", " "), "value": value} for name, value in letter.items()]
    title = escape(f"{letter['error_code']}: {letter['error_message']}")
    show(letter, table(rows, ["field", "value"], title=title), as_json=as_json)


@app.command()
def redrive(
    ids: IdsArgument = None,
    *,
    stage: StageOption = None,
    error_code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Run the whole chain again, not from the stage that failed.")
    ] = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Give dead letters another chance, with new budgets. Exit 1 when one could not be redriven."""
    only = {"stage": stage, "error_code": error_code, "since": since, "until": until}
    _ensure_one(ids, only)
    body: dict[str, object] = {
        "actor": who(),
        "reason": reason,
        "ids": ids or None,
        "from": "start" if from_start else "failed_stage",
        **only,
    }
    many(
        join(state), "dlq/redrive", body, "Redrive {} dead letters?",
        dry_run=dry_run, yes=yes or bool(ids), as_json=as_json,
    )  # fmt: skip


@app.command()
def purge(
    ids: IdsArgument = None,
    *,
    stage: StageOption = None,
    error_code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    reason: ReasonOption = None,
    yes: YesOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Put dead letters away that nobody has a use for. Their jobs stay failed, their files where they are.

    Exit 1 when somebody else has resolved one of them meanwhile.
    """
    only = {"stage": stage, "error_code": error_code, "since": since, "until": until}
    _ensure_one(ids, only)
    api = join(state)
    found = ids or [letter["id"] for letter in api.pages("dlq", **only)]
    if not found:
        make_console().print("There is none.")
        return
    confirm(f"Purge {len(found)} dead letters?", yes=yes)
    purged = sum(_purged(api, letter_id, reason) for letter_id in found)
    console = make_console()
    console.print(f"{purged} purged; `dailies dlq list --which purged` shows them until they age.")
    if purged < len(found):
        console.print(f"{len(found) - purged} left alone: somebody else has resolved them meanwhile.")
        raise typer.Exit(1)


def _purged(api: Api, letter_id: str, reason: str | None) -> bool:
    """Purge one; returns whether nobody else has resolved it."""
    try:
        api.delete(f"dlq/{letter_id}", actor=who(), reason=reason)
    except DailiesError as error:
        if error.code != "ALREADY_RESOLVED":
            raise
        return False
    return True


def _ensure_one(ids: list[str] | None, only: dict[str, Any]) -> None:
    if bool(ids) == any(value is not None for value in only.values()):
        raise typer.BadParameter(FILTERS)
