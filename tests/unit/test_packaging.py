"""What is installed is whole, light where it must be, and says what to install where something is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import tradetape
from tradetape.console import cli
from tradetape.console.extras import EXTRA_OF

CHECKOUT = Path(__file__).resolve().parents[2]
ROOTS = ("schemas", "producers", "streams", "sinks", "console")
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ("faust", "mode", "aiokafka", "psycopg", "redis", "confluent_kafka", "fastavro", "rich", "psutil", "jgo")


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_tradetape_is_a_namespace_that_other_distributions_can_add_to() -> None:
    assert vars(tradetape).get("__file__") is None
    assert [root for root in ROOTS if (CHECKOUT / root / "tradetape" / "__init__.py").exists()] == []
    assert len(set(tradetape.__path__)) == len(ROOTS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel that is built from the checkout."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed, so no wheel can be built without the network")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(path).namelist())


def test_the_wheel_holds_every_file_of_every_room(wheel: set[str]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--", *(f"{root}/tradetape" for root in ROOTS)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout, so nobody says which files belong to it")
    tracked = {name for name in listed.stdout.splitlines() if (CHECKOUT / name).exists()}
    assert len(tracked) > len(ROOTS)
    assert {name.partition("/")[2] for name in tracked} <= wheel


@pytest.mark.parametrize(
    "name",
    [
        "tradetape/schemas/avro/Candle.avsc",
        "tradetape/schemas/events.pyi",
        "tradetape/streams/state/newest.lua",
        "tradetape/sinks/history/migrations/0001_history.sql",
        "tradetape/sinks/history/queries.sql",
        "tradetape/console/demo/sample/BTCUSDT_1m.csv.gz",
        "tradetape/console/demo/sample/LICENSE",
        "tradetape/console/local/kafka_jars.txt",
        "tradetape/console/local/server.properties",
        *(f"tradetape/{room}/py.typed" for room in ROOTS),
    ],
)
def test_the_wheel_holds_what_is_no_python(wheel: set[str], name: str) -> None:
    assert name in wheel


def test_the_wheel_holds_nothing_else(wheel: set[str]) -> None:
    rooms = tuple(f"tradetape/{room}/" for room in ROOTS)
    assert [name for name in wheel if not name.startswith((*rooms, "tradetape-"))] == []


@pytest.mark.parametrize("package", EXTRA_OF)
def test_the_extra_that_is_named_for_a_missing_package_brings_it(package: str) -> None:
    (distribution,) = set(metadata.packages_distributions()[package])
    wanted = PROJECT["optional-dependencies"][EXTRA_OF[package]]
    names = {re.split(r"[\[<>=;, ]", one)[0].lower().replace("_", "-") for one in wanted}
    assert distribution.lower().replace("_", "-") in names


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from tradetape.console import cli
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("redis", "state", ["state", "show", "binance", "BTCUSDT", "1m"]),
        ("redis", "state", ["work", "state", "--engine", "kafka"]),
        ("psycopg", "sinks", ["history", "status"]),
        ("psycopg", "sinks", ["work", "history"]),
        ("psutil", "local", ["up"]),
        ("psutil", "local", ["status"]),
        ("rich", "console", ["demo"]),
    ],
)
def test_a_command_without_its_packages_says_what_to_install(
    package: str, extra: str, command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRADETAPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    done = python(WITHOUT, package, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tradetape: this command needs more packages: install tradetape[{extra}]\n"


def test_a_package_that_no_extra_brings_is_a_defect_and_not_advice() -> None:
    done = python(WITHOUT, "json", "topics", "list", "--json")
    assert "install tradetape" not in done.stderr
    assert "Traceback" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from tradetape.console import cli
try:
    cli.main(["--help"])
finally:
    print(" ".join(sys.modules), file=sys.stderr)
"""
    done = python(program)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: tradetape")
    imported = set(done.stderr.split())
    assert "tradetape.console.commands.work" in imported
    assert imported.isdisjoint(HEAVY)


def test_every_module_of_commands_is_registered() -> None:
    folder = Path(cli.__file__).with_name("commands")
    assert {path.stem for path in folder.glob("*.py") if path.stem != "__init__"} == set(cli.COMMANDS)


def test_the_installed_command_is_the_one_of_this_checkout() -> None:
    (script,) = [one for one in metadata.entry_points(group="console_scripts") if one.name == "tradetape"]
    assert script.load() is cli.main
