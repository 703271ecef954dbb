"""The compose file, its example settings and the image say what the code says; nothing here needs Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.core import TyperGroup
from typer.main import get_command

from cli import parts
from cli.main import app
from cli.stack import aws
from pipeline.queues import LANES
from pipeline.settings import Settings
from tasks.queues import WORKERS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(COMPOSE_FILE)["services"]
#: What runs our own image, and so one of our commands.
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "dailies"}
ENV_LINE = re.compile(r"^#?(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$", re.MULTILINE)
EXAMPLE = dict(ENV_LINE.findall((ROOT / ".env.example").read_text(encoding="utf-8")))


def options_of(service: str) -> dict[str, Any]:
    """The options of a service's command as typer reads them; it fails on what typer would refuse."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    name, *arguments = OURS[service]["command"]
    command = group.commands[name]
    return dict(command.make_context(name, list(arguments)).params)


@pytest.mark.parametrize("service", OURS)
def test_command_of_a_service_is_a_dailies_command_with_options_it_has(service: str) -> None:
    options_of(service)


def test_every_lane_has_a_worker_in_compose() -> None:
    served = {name: options_of(name)["queues"].split(",") for name in WORKERS}
    assert served == {name: list(lanes) for name, lanes in WORKERS.items()}
    assert {lane for lanes in served.values() for lane in lanes} == set(LANES)


def test_compose_runs_every_part_of_dailies() -> None:
    made = {service["command"][0] for service in OURS.values()}
    assert made == {
        command.callback.__name__ for command in parts.app.registered_commands if command.callback
    }


def test_aws_container_serves_what_the_embedded_one_serves() -> None:
    assert SERVICES["aws"]["environment"]["SERVICES"] == aws.SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_loopback_alone(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


def test_api_container_may_bind_to_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES["api"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert (settings.api_host, settings.api_port, settings.api_trusted_network) == ("0.0.0.0", 8000, True)  # noqa: S104


def test_secrets_have_no_default() -> None:
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    secret = re.compile(r"\$\{\w*(?:PASSWORD|SECRET|ACCESS_KEY|BASIC_AUTH)\w*(?P<rest>[^}]*)\}")
    assert {match["rest"] for match in secret.finditer(text)} == {":?set it in .env"}


def test_example_names_every_variable_of_compose_and_no_setting_that_does_not_exist() -> None:
    in_compose = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text(encoding="utf-8")))
    settings = {f"DAILIES_{name}".upper() for name in Settings.model_fields}
    assert in_compose <= set(EXAMPLE)
    assert {name for name in EXAMPLE if not name.startswith("AWS_")} <= settings | in_compose


@pytest.mark.parametrize("variable", [name for name, value in EXAMPLE.items() if value])
def test_example_shows_the_default_of_a_setting(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in EXAMPLE.items():
        monkeypatch.delenv(name, raising=False)
        if name == variable:
            monkeypatch.setenv(name, value)
    field = "aws_region" if variable == "AWS_DEFAULT_REGION" else variable.removeprefix("DAILIES_").lower()
    assert getattr(Settings(_env_file=None), field) == Settings.model_fields[field].default


def test_container_settings_exist() -> None:
    given = {name for service in OURS.values() for name in service["environment"]}
    settings = {f"DAILIES_{name}".upper() for name in Settings.model_fields}
    assert {name for name in given if not name.startswith("AWS_")} <= settings


def test_image_installs_the_locked_versions_and_drops_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    syncs = re.findall(r"uv sync[^\n]*", dockerfile)
    assert syncs
    assert all("--locked --no-dev" in sync for sync in syncs)
    assert re.search(r"^USER \d+", dockerfile, re.MULTILINE)
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} <= targets
