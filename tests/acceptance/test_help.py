"""The `tradetape` command before it does anything: help, version, usage errors, settings errors, pipes."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from console_rig import COMMAND, clean_environment, tradetape


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which nothing runs."""
    return clean_environment(tmp_path / "home")


def test_help_goes_to_stdout(environment: dict[str, str]) -> None:
    done = tradetape("--help", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tradetape demo" in done.stdout
    assert "exit codes: 0 done, 1 failed, 2 usage or settings, 3" in done.stdout


def test_version_is_that_of_the_distribution(environment: dict[str, str]) -> None:
    assert tradetape("--version", environment=environment).stdout == f"tradetape {version('tradetape')}\n"


def test_the_module_is_the_command(environment: dict[str, str]) -> None:
    module = [sys.executable, "-m", "tradetape.console", "--help"]
    done = subprocess.run(module, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == tradetape("--help", environment=environment).stdout


@pytest.mark.parametrize(
    "words",
    [[], ["tpoics"], ["topics"], ["topics", "apply", "--partitions", "0"], ["logs", "zookeeper"], ["doctor", "--jsno"]],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_says_so_on_stderr(words: list[str], environment: dict[str, str]) -> None:
    done = tradetape(*words, environment=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: tradetape")


@pytest.mark.parametrize(
    "words", [["doctor"], ["topics", "list"], ["history", "status"], ["work", "state"]], ids=" ".join
)
def test_a_mistyped_setting_is_exit_code_2_with_the_nearest_name(words: list[str], environment: dict[str, str]) -> None:
    done = tradetape(*words, environment={**environment, "TRADETAPE_REDIS_PREFX": "x"})
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"tradetape: TRADETAPE_REDIS_PREFX .*did you mean TRADETAPE_REDIS_PREFIX\?\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "variable"),
    [(["topics", "list"], "KAFKA_BOOTSTRAP_SERVERS"), (["history", "status"], "DATABASE_URL")],
)
def test_a_setting_that_is_missing_is_named_with_an_example_and_the_way_to_a_local_stack(
    words: list[str], variable: str, environment: dict[str, str]
) -> None:
    done = tradetape(*words, environment=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"tradetape: {variable} is not set .*{variable}=.*`tradetape up`\n", done.stderr)


def test_a_reader_that_has_seen_enough_is_no_error(environment: dict[str, str]) -> None:
    running = subprocess.Popen(
        [str(COMMAND), "doctor", "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    told = running.stderr.read()
    running.stderr.close()
    assert running.wait() == 0
    assert "BrokenPipe" not in told
