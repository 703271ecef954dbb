"""What commands that change something have in common: who, why, which, and whether that is meant."""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from cli.client import Api
from cli.console import make_console

AT_ONCE = 100  #: of many that are handled in one request
LONGEST_S = 300.0  #: a request that handles many is waited for
_AGO = re.compile(r"(?P<count>\d+)(?P<unit>[smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Why, for those who read the audit log later.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
StageOption = Annotated[str | None, typer.Option("--stage", help="Only what failed in this stage.")]
CodeOption = Annotated[str | None, typer.Option("--error-code", help="Only what failed with this code.")]


def moment(told: str | None) -> str | None:
    """``90m``, ``2h``, ``3d`` ago, or a date and time as they are (ISO 8601; UTC where no offset is told)."""
    if told is None:
        return None
    if ago := _AGO.fullmatch(told):
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})).isoformat()
    try:
        at = datetime.fromisoformat(told)
    except ValueError:
        raise typer.BadParameter(f"{told!r} is neither an age (90m, 2h, 3d) nor a date and time") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


SinceOption = Annotated[
    str | None, typer.Option("--since", help="Not before: 90m, 2h, 3d ago, or a time.", callback=moment)
]
UntilOption = Annotated[
    str | None, typer.Option("--until", help="Before: 90m, 2h, 3d ago, or a time.", callback=moment)
]


def who() -> str:
    """The user of this machine, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "operator"


def order(reason: str | None, **body: object) -> dict[str, object]:
    """The body of a request that changes something."""
    return {"actor": who(), "reason": reason, **body}


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless ``yes`` was said. Leaves the command when the answer is no."""
    if not yes:
        typer.confirm(question, abort=True)


def in_pages(
    api: Api, path: str, body: dict[str, object], *, told: Callable[[dict[str, Any]], None] | None = None
) -> list[dict[str, Any]]:
    """Send a request that handles many until nothing is left, or nothing more can be decided now.

    Returns the entries of all answers.
    """
    entries: dict[str, dict[str, Any]] = {}  # what could not be decided is told again by the next answer
    cursor: str | None = None
    while True:
        answer = api.post(path, {"limit": AT_ONCE, **body, "cursor": cursor}, seconds=LONGEST_S)
        entries |= {entry.get("dead_letter_id") or entry["job_id"]: entry for entry in answer["data"]}
        if told is not None:
            told(answer["metadata"])
        before, cursor = cursor, answer["metadata"]["next_cursor"]
        if cursor in {None, before} or not answer["data"]:
            return list(entries.values())


def progress(metadata: dict[str, Any]) -> None:
    """One line for each request of many."""
    left = metadata["remaining"]
    if left:
        told = f"More than {left:,}" if metadata["remaining_more"] else left
        make_console().print(f"{told} are left ...", highlight=False)


def refused_shown(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with the reason of a refusal as a sentence."""
    return [
        {
            **entry,
            "refused": entry["refused"] and f"{entry['refused']['code']}: {entry['refused']['message']}",
        }
        for entry in entries
    ]
