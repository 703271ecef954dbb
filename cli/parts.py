"""The single parts of Dailies, each in the foreground: what the stack and containers run."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from pipeline.settings import get_settings

# Every part is imported where it starts: a listener needs no web framework, a worker no server.

app = typer.Typer()
PANEL = "The single parts, for containers"


@app.command(rich_help_panel=PANEL)
def api() -> None:
    """Serve the HTTP API."""
    import uvicorn

    # When it has stopped serving, uvicorn sends itself the signal again; the process then ends here, with 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    settings = get_settings()
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,  # pipeline.log does it
        access_log=False,  # the API writes a line for each request itself
        timeout_graceful_shutdown=5,
    )


@app.command(rich_help_panel=PANEL)
def worker(
    queues: Annotated[str, typer.Option(help="Lanes to serve, most urgent first.")] = "express,standard,bulk",
    concurrency: Annotated[
        int | None, typer.Option(help="Pool processes; the setting worker_concurrency unless given.")
    ] = None,
    hostname: Annotated[
        str | None,
        typer.Option(help="The worker's name, one of its own; %h is the machine's. [default: worker-PID@%h]"),
    ] = None,
) -> None:
    """Work on queue rows."""
    from tasks.app import get_app

    processes = concurrency or get_settings().worker_concurrency
    name = hostname or f"worker-{os.getpid()}@%h"
    get_app().worker_main(["worker", "--queues", queues, "--concurrency", str(processes), "--hostname", name])


@app.command(rich_help_panel=PANEL)
def listener() -> None:
    """Turn S3 events into jobs."""
    from tasks.listener import main

    main()


@app.command(rich_help_panel=PANEL)
def steward() -> None:
    """Keep rows and broker in step."""
    from tasks.steward import main

    main()


@app.command(rich_help_panel=PANEL)
def flower() -> None:
    """Serve Flower, which shows workers and tasks."""
    from tasks.flower import main

    main()


@app.command(rich_help_panel=PANEL)
def migrate() -> None:
    """Bring the database's tables to this version."""
    from db.migrate import upgrade

    upgrade(get_settings().database_url.get_secret_value())


@app.command(rich_help_panel=PANEL)
def bootstrap() -> None:
    """Create the buckets, notifications and queues that are missing."""
    from tasks.bootstrap import bootstrap as create

    create(get_settings())
