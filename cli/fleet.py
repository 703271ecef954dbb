"""Queues, workers, and whether rows, messages and objects agree."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.console import make_console
from cli.options import DEFAULT_STATE, JsonOption, StateOption, join
from cli.orders import LONGEST_S, ReasonOption, order
from cli.queries import PANEL
from cli.tables import show, table

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def queues(as_json: JsonOption = False, state: StateOption = DEFAULT_STATE) -> None:
    """Show every queue: messages, rows, how long the oldest waits, who paused it, who serves it."""
    api = join(state)
    found = api.get("queues")["data"]
    rows = [
        {
            **each,
            "workers": len(each["workers"]) or None,
            "oldest_s": each["oldest_due_seconds"],
            "paused": "yes" if each["paused"] else None,
        }
        for each in found
    ]
    messages = ["visible", "in_flight", "delayed"]
    counted = ["due", "waiting", "processing", "retrying", "pending", "oldest_s"]
    names = ["name", *messages, *counted, "workers", "paused"]
    show(found, table(rows, names), as_json=as_json)
    if not as_json:
        _tell_more(found, api.not_ready())


def _tell_more(found: list[dict[str, Any]], wrong: list[str]) -> None:
    console = make_console()
    for each in found:
        if pause := each["paused"]:
            since, why = pause["since"][:16].replace("T", " "), pause["reason"] or "no reason given"
            console.print(f"{each['name']} is paused since {since} by {pause['by']}: {why}", markup=False)
    if error := next((each["error"] for each in found if each["error"]), None):
        console.print(f"No counts of messages: {error}", style="red", markup=False)
    for sentence in wrong:
        console.print(f"Not ready: {sentence}", style="red", markup=False)


@app.command(rich_help_panel=PANEL)
def workers(
    everything: Annotated[bool, typer.Option("--all", help="Also those that have stopped.")] = False,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the workers, what each holds, and who has fallen silent."""
    found = [each for each in join(state).get("workers")["data"] if everything or each["state"] != "stopped"]
    rows = [
        {**each, "last_word_s": each["silent_seconds"],
         "works_on": [f"{row['job_type']} {row['id']}" for row in each["rows"]]}
        for each in found
    ]  # fmt: skip
    names = ["id", "name", "state", "reason", "lanes", "concurrency", "version", "last_word_s", "works_on"]
    show(found, table(rows, names), as_json=as_json)


@app.command(rich_help_panel=PANEL)
def reconcile(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend it now, instead of when the steward does.")
    ] = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Compare rows, messages and objects. Exit 1 when they disagree, or when --fix could not mend."""
    api = join(state)
    mended = api.post("reconcile", order(reason), seconds=LONGEST_S)["data"] if fix else None
    drift = api.get("reconcile")["data"]
    data = {"mended": mended, "drift": drift} if fix else drift
    if as_json:
        show(data, table([], []), as_json=True)
    else:
        _tell(mended, drift)
    if (mended and mended["failed"]) or not drift["clean"]:
        raise typer.Exit(1)


def _tell(mended: dict[str, Any] | None, drift: dict[str, Any]) -> None:
    console = make_console()
    if mended is not None:
        steps = [{"step": name, "changed": count} for name, count in mended["steps"].items() if count]
        failed = [{"step": name, "changed": f"failed: {why}"} for name, why in mended["failed"].items()]
        if steps or failed:
            console.print(table(steps + failed, ["step", "changed"], title="Mended"))
        else:
            console.print("There was nothing to mend.")
    if drift["findings"]:
        rows = [
            {
                **each,
                "count": f"{each['count']}{'+' if each['more'] else ''}",
                "for_example": each["samples"][:3],
            }
            for each in drift["findings"]
        ]
        console.print(table(rows, ["kind", "count", "what", "for_example", "mended_by"]))
    for sentence in drift["cut"]:
        console.print(f"[yellow]Not looked through to the end:[/] {sentence}", highlight=False)
    word = "Rows, messages and objects agree." if drift["clean"] else "Rows, messages and objects disagree."
    console.print(f"{word} Looked for {drift['seconds']:.1f} s.", highlight=False)
