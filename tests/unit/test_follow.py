"""An API that is away while uploads are followed."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from cli.client import Api
from cli.follow import _Patience
from pipeline.errors import InfrastructureError


def test_api_that_stays_away_is_told_once_and_an_error_in_the_end() -> None:
    told = io.StringIO()
    patience = _Patience(Console(file=told, width=200), seconds=1)
    api = Api("http://127.0.0.1:1")  # nobody listens there

    def ask() -> None:
        api.get("media-items")

    def until_it_raises() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            patience.asking(ask)

    with pytest.raises(InfrastructureError, match="Connection refused") as raised:
        until_it_raises()
    assert raised.value.code == "API_UNAVAILABLE"
    assert told.getvalue().count("The API does not answer") == 1
