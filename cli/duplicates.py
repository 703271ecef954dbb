"""``dailies duplicates``: pictures that look alike, in groups, straight from the database."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import make_console
from cli.options import DEFAULT_STATE, JsonOption, StateOption, running_stack
from cli.stack.environment import adopt, environment
from cli.tables import show, table
from pipeline.media.alike import THRESHOLD, WIDEST
from pipeline.settings import get_settings

if TYPE_CHECKING:
    from db import similar

NAMES = ["group", "id", "key", "pixels", "bytes", "quality", "distance"]


def duplicates_command(
    *,
    threshold: Annotated[
        int,
        typer.Option(help="Bits, of 256, by which two may differ; 64 finds crops too.", min=0, max=WIDEST),
    ] = THRESHOLD,
    limit: Annotated[int, typer.Option(help="How many groups to show, the largest first.", min=1)] = 20,
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show pictures that look alike, the best of each group first: most pixels, bytes, quality, then age.

    Distances are to the best. It asks the database, not the API, and compares all pictures: a million take
    minutes.
    """
    # Imported here: no other command needs the database's libraries.
    from db import similar
    from db.session import guarded, make_engine, session_factory

    # Minutes of a processor are nothing for a process that answers others.
    if not os.environ.get("DAILIES_DATABASE_URL"):
        adopt(environment(running_stack(state)[0]))
    engine = make_engine(get_settings().database_url.get_secret_value(), pool_size=1)
    try:
        with guarded():
            found = similar.groups(session_factory(engine), threshold=threshold, limit=limit)
    finally:
        engine.dispose()
    show(_data(found), table(_rows(found), NAMES), as_json=as_json)
    if not as_json:
        make_console().print(f"{found.items} items in {found.groups} groups")


def _data(found: similar.Groups) -> dict[str, Any]:
    groups = [[asdict(item) for item in group] for group in found.shown]
    for item in (item for group in groups for item in group):
        item |= {"id": str(item["id"]), "created_at": item["created_at"].isoformat()}
    return {"groups": found.groups, "items": found.items, "shown": groups}


def _rows(found: similar.Groups) -> list[dict[str, Any]]:
    return [
        {
            **asdict(item),
            "group": number,
            "pixels": f"{item.width} x {item.height}" if item.width else None,
            "bytes": item.size_bytes,
        }
        for number, group in enumerate(found.shown, start=1)
        for item in group
    ]
