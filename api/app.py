"""The application: ``uvicorn --factory api.app:create_app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI
from fastapi_offline import FastAPIOffline

from api import errors
from api.dependencies import Resources, bind_ids
from api.envelope import SCHEMA_VERSION, Envelope, Out
from api.metrics import Metrics
from api.middleware import RequestContext
from api.routes import health, jobs, media, search, thumbnails
from pipeline import log
from pipeline.settings import Settings, get_settings

DESCRIPTION = """
Steers and shows the media pipeline. Every file that lands in the bucket becomes a **media item**; a **job**
runs a workflow on it, with one **queue row** for each stage.

Answers are `{"data", "metadata"}`, errors are `{"errors": [{"code", "message", "field"}], "metadata"}`.
`X-Request-ID` is taken over, or made, and is in every log line. Input may be `snake_case` or `camelCase`.
Lists that grow without end are read by cursor: give `metadata.next_cursor` as `cursor`.
"""
TAGS = [
    {"name": "jobs", "description": "Runs of a workflow on a media item."},
    {"name": "queue", "description": "The stages of jobs: what waits, what runs, what is done."},
    {"name": "media", "description": "What is in the bucket, and what became of it."},
    {"name": "search", "description": "Find media items by what is known of them."},
    {"name": "thumbnails", "description": "Pictures derived from media items."},
    {"name": "health", "description": "For load balancers and Prometheus."},
]


class ApiInfo(Out):
    """What answers here."""

    name: str = "Dailies"
    schema_version: str = SCHEMA_VERSION
    documentation: str = "/docs"
    openapi: str = "/openapi.json"


class ApiInfoAnswer(Envelope[ApiInfo]):
    """What answers here."""


root = APIRouter(prefix="/api/v1", tags=["health"], responses=errors.ANY_OPERATION)


@root.get("", summary="What answers here")
async def info() -> ApiInfoAnswer:
    """The name of the API and where it is described."""
    return ApiInfoAnswer(data=ApiInfo())


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API with ``settings``, or those of the environment. Connects when it starts, not here."""
    settings = settings or get_settings()
    log.configure(settings, role="api")
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A thread without a connection could only wait for one.
        to_thread.current_default_thread_limiter().total_tokens = settings.db_pool_size
        app.state.resources = Resources.open(settings, metrics)
        try:
            yield
        finally:
            app.state.resources.close()

    # Its documentation page needs no other server, which an operator's network may not reach.
    app = FastAPIOffline(
        redoc_url=None,
        title="Dailies",
        version=SCHEMA_VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        dependencies=[Depends(bind_ids)],
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    errors.install(app)
    app.add_middleware(RequestContext, metrics=metrics)
    for module in (jobs, media, search, thumbnails, health):
        app.include_router(module.router)
    app.include_router(root)
    return app
