"""The application: ``uvicorn --factory api.app:create_app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI
from fastapi_offline import FastAPIOffline

from api import errors
from api.dependencies import Resources, bind_ids
from api.envelope import SCHEMA_VERSION, Envelope, Out
from api.metrics import Metrics
from api.middleware import RequestContext
from api.routes import control, dlq, fleet, health, jobs, media, search, similar, stats, thumbnails
from pipeline import log
from pipeline.errors import ConfigurationError
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
    {"name": "queue", "description": "The stages of jobs: what waits, what runs, what is done; the lanes."},
    {"name": "dlq", "description": "Dead letters: what was given up on, or was never ours."},
    {"name": "workers", "description": "The processes that run stages."},
    {"name": "reconcile", "description": "Whether rows, messages and objects agree."},
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
    """The API with ``settings``, or those of the environment. It connects to nothing yet.

    Raises:
        ConfigurationError: when the API would be open to a network, or the database's URL is none.
    """
    settings = settings or get_settings()
    hosts = _own_hosts(settings)
    log.configure(settings, role="api")
    metrics = Metrics()
    # Here and not in the lifespan, which would tell a wrong setting by a traceback.
    resources = Resources.open(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A thread without a connection could only wait for one.
        to_thread.current_default_thread_limiter().total_tokens = settings.db_pool_size
        app.state.resources = resources
        try:
            yield
        finally:
            resources.close()

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
    app.add_middleware(RequestContext, metrics=metrics, hosts=hosts)
    for module in (jobs, stats, control, fleet, dlq, media, similar, search, thumbnails, health):
        app.include_router(module.router)
    app.include_router(root)
    return app


def _own_hosts(settings: Settings) -> frozenset[str] | None:
    """The names under which the API may be asked; None for any, where the network is trusted."""
    if settings.api_trusted_network:
        return None
    if not _is_loopback(settings.api_host):
        raise ConfigurationError(
            "The API has no authentication yet and does not bind beyond loopback: DAILIES_API_HOST is "
            f"{settings.api_host!r}; set it to 127.0.0.1, or DAILIES_API_TRUSTED_NETWORK=true where the "
            "network itself lets nobody else in."
        )
    named = urlsplit(settings.api_url or "").hostname
    return frozenset({"127.0.0.1", "localhost", "::1", settings.api_host, named or "localhost"})


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name, which may mean any address
        return False
