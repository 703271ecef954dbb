"""How the parts find each other: the environment of one stack."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cli.stack import aws, postgres
from cli.stack.state import State
from pipeline.settings import Settings, get_settings

#: A part that is asked to end waits for its long poll first: with 4 s, a whole stack ends within its 15 s.
POLL_WAIT_S = "4"
#: What runs when the stack ends has this long; then its rows are given back, for the next start.
SHUTDOWN_GRACE_S = "2"
#: What `dailies env` prints, in this order.
EXPORTED = (
    "DAILIES_API_URL",
    "DAILIES_FLOWER_URL",
    "DAILIES_FLOWER_BASIC_AUTH",
    "DAILIES_DATABASE_URL",
    "DAILIES_AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "DAILIES_STORAGE_BUCKET",
    "DAILIES_THUMBNAIL_BUCKET",
    "DAILIES_QUEUE_PREFIX",
    "DAILIES_SPOOL_DIR",
)


def environment(state: State) -> dict[str, str]:
    """What tells a process where this state's stack is."""
    ports = state.ports()
    access_key, secret = aws.credentials(state)
    names = {name: str(field.default) for name, field in Settings.model_fields.items()}
    return {
        "DAILIES_API_HOST": "127.0.0.1",
        "DAILIES_API_PORT": str(ports["api"]),
        "DAILIES_API_URL": f"http://127.0.0.1:{ports['api']}",
        "DAILIES_FLOWER_HOST": "127.0.0.1",
        "DAILIES_FLOWER_PORT": str(ports["flower"]),
        "DAILIES_FLOWER_URL": f"http://127.0.0.1:{ports['flower']}",
        "DAILIES_FLOWER_BASIC_AUTH": f"dailies:{state.secret('flower')}",
        "DAILIES_DATABASE_URL": postgres.url(state),
        "DAILIES_AWS_ENDPOINT_URL": aws.url(state),
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "DAILIES_STORAGE_BUCKET": names["storage_bucket"],
        "DAILIES_THUMBNAIL_BUCKET": names["thumbnail_bucket"],
        "DAILIES_QUEUE_PREFIX": names["queue_prefix"],
        "DAILIES_SPOOL_DIR": str(state.root / "spool"),
    }


def isolated(own: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with ``own`` on top, and without what would lead an AWS client elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    loopback = ",".join(
        filter(None, (kept.get("NO_PROXY") or kept.get("no_proxy"), "127.0.0.1", "localhost"))
    )
    return {
        "DAILIES_POLL_WAIT": POLL_WAIT_S,
        "DAILIES_SHUTDOWN_GRACE": SHUTDOWN_GRACE_S,
        **kept,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        "PYTHONUNBUFFERED": "1",
        **own,
    }


def adopt(own: Mapping[str, str]) -> None:
    """Make this very process a client of the stack that ``own`` tells of."""
    wanted = isolated(own)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)
    get_settings.cache_clear()
