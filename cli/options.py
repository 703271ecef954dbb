"""Options that several commands share, and what they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Api
from cli.stack.environment import adopt, environment
from cli.stack.state import RoleRecord, State
from pipeline.errors import DailiesError

STATE_VARIABLE = "DAILIES_STATE_DIR"

StateOption = Annotated[
    Path,
    typer.Option("--state", envvar=STATE_VARIABLE, help="Folder of the stack's state.", show_default=True),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_STATE = Path("var")


class NotRunningError(DailiesError):
    """No stack runs on the state folder."""

    code = "NOT_RUNNING"


def running_stack(folder: Path) -> tuple[State, list[RoleRecord]]:
    """The state and the record of the stack that runs on ``folder``.

    Raises:
        NotRunningError: when none does.
    """
    state = State(folder)
    record = state.running()
    if not record:
        raise NotRunningError(
            f"No stack runs on {state.root}: `dailies up` starts one, --state DIR names another."
        )
    return state, record


def join(folder: Path) -> Api:
    """Make this process a client: of the API the environment names, else of the stack on ``folder``."""
    if not os.environ.get("DAILIES_API_URL"):
        adopt(environment(running_stack(folder)[0]))
    return Api(os.environ["DAILIES_API_URL"])
