"""The project's own docker-compose.yml at work, under a name and on ports that no other set on this machine has.

The engine may belong to somebody else or stand in a virtual machine: everything goes through `docker`, also what a test
does to a container, and only ever to those of this set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tradetape.console.local.ports import any_free
from waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[2]
PORTS = ("KAFKA_PORT", "KAFKA_2_PORT", "KAFKA_3_PORT", "REGISTRY_PORT", "REDIS_PORT", "POSTGRES_PORT")
WORKERS = ("state", "approval", "history", "dispatch", "positions")
SERVICES = ("kafka", "registry", "redis", "postgres")
COMMAND_TIMEOUT_S = 60.0
BUILD_TIMEOUT_S = 600.0
UP_TIMEOUT_S = 240.0
HEALTHY_TIMEOUT_S = 180.0
DEMO_TIMEOUT_S = 240.0
CLI_TIMEOUT_S = 120.0


class Container(NamedTuple):
    """One service's container as the engine has it now."""

    id: str
    pid: int
    health: str
    restarts: int
    started_at: str


def docker(*words: str, timeout_s: float = COMMAND_TIMEOUT_S, environment: Mapping[str, str] | None = None) -> str:
    """What a command of docker prints. Raises an AssertionError that holds what it said when it fails."""
    done = subprocess.run(
        ["docker", *words], cwd=CHECKOUT, env={**os.environ, **(environment or {})}, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"docker {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@cache
def missing() -> str | None:
    """Why no set can be brought up here; None where it can. Nothing is pulled: an image that is not here is missing."""
    if shutil.which("docker") is None:
        return "there is no docker"
    try:
        docker("compose", "version", timeout_s=10)
        docker("version", "--format", "{{.Server.Version}}", timeout_s=10)
    except (AssertionError, subprocess.TimeoutExpired):
        return "no Docker engine with compose answers"
    lacking = [image for image in images() if not docker("image", "ls", "--quiet", image).strip()]
    return f"these images are not here: {', '.join(lacking)}" if lacking else None


def images() -> list[str]:
    """The images that the default set and its build need."""
    base = next(line.split()[1] for line in (CHECKOUT / "Dockerfile").read_text().splitlines() if line[:5] == "FROM ")
    return sorted({base, *(service["image"] for name, service in declared().items() if name in SERVICES)})


def declared(*files: str) -> dict[str, Any]:
    """The services of the compose files, every profile, as compose understands them."""
    named = [word for file in files for word in ("--file", file)]
    found = docker("compose", *named, "--profile", "*", "config", "--format", "json")
    services: dict[str, Any] = json.loads(found)["services"]
    return services


class ComposeSet:
    """One set. `start` brings it up, `remove` takes down everything that it has made."""

    def __init__(self, *files: str) -> None:
        self.name = f"tradetape-test-{uuid.uuid4().hex[:8]}"
        self.environment = {**{port: str(any_free()) for port in PORTS}, "TRADETAPE_IMAGE": f"{self.name}:latest"}
        self._files = [word for file in files for word in ("--file", file)]

    def compose(self, *words: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """A command of docker compose on this set."""
        named = ["compose", "--project-name", self.name, "--progress", "quiet", *self._files]
        return docker(*named, *words, timeout_s=timeout_s, environment=self.environment)

    def build(self) -> None:
        """The image, of this checkout as it is now."""
        self.compose("build", "--quiet", "setup", timeout_s=BUILD_TIMEOUT_S)

    def start(self) -> None:
        """Bring the set up and wait until all of it is healthy; with the ends of its logs where it does not."""
        try:
            self.compose("up", "--detach", "--no-build", "--wait", timeout_s=UP_TIMEOUT_S)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--tail', '15')}") from None

    def remove(self) -> None:
        """Containers, volumes, network and image."""
        self.compose(
            "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "3", timeout_s=UP_TIMEOUT_S
        )
        docker("image", "rm", "--force", self.environment["TRADETAPE_IMAGE"])

    def run(self, *words: str) -> subprocess.Popen[str]:
        """A one-shot service as somebody runs it, while the test does something else."""
        command = ["docker", "compose", "--project-name", self.name, "--progress", "quiet", *self._files]
        return subprocess.Popen(
            [*command, "run", "--rm", "--no-TTY", *words], cwd=CHECKOUT, env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def cli(self, *words: str) -> str:
        """What a command of tradetape inside of the network prints."""
        return self.compose("run", "--rm", "--no-TTY", "cli", *words, timeout_s=CLI_TIMEOUT_S)

    def runs(self, service: str) -> bool:
        """Whether a container of a service runs, also one of `run`."""
        labels = {"project": self.name, "service": service}
        filters = [
            word for name, of in labels.items() for word in ("--filter", f"label=com.docker.compose.{name}={of}")
        ]
        return bool(docker("ps", "--quiet", *filters).strip())

    @property
    def kafka(self) -> str:
        """Kafka's address from this machine."""
        return f"127.0.0.1:{self.environment['KAFKA_PORT']}"

    @property
    def database_url(self) -> str:
        """PostgreSQL's address from this machine, with the password that everybody knows."""
        return f"postgresql://tradetape:development@127.0.0.1:{self.environment['POSTGRES_PORT']}/tradetape"

    @property
    def redis_url(self) -> str:
        """Redis' address from this machine."""
        return f"redis://127.0.0.1:{self.environment['REDIS_PORT']}/0"

    def container(self, service: str) -> Container:
        """A service's container."""
        (found,) = json.loads(docker("inspect", f"{self.name}-{service}-1"))
        state = found["State"]
        return Container(
            found["Id"], state["Pid"], state.get("Health", {}).get("Status", ""), found["RestartCount"], state["StartedAt"]
        )  # fmt: skip

    def inspected(self, service: str) -> dict[str, Any]:
        """All that the engine says of a service's container."""
        (found,) = json.loads(docker("inspect", f"{self.name}-{service}-1"))
        return dict(found)

    def crash(self, service: str) -> None:
        """`kill -9` of a container's first process, as a crash or the system's memory killer would end it.

        Not `docker kill`, which Docker takes for the wish of an operator and never restarts after. No process inside of
        a container can kill the first one, so a container that sees the machine's processes does.
        """
        pid = self.container(service).pid
        program = f"import os; os.kill({pid}, 9)"
        docker(
            "run", "--rm", "--pid", "host", "--user", "0", "--network", "none", "--entrypoint", "python",
            self.environment["TRADETAPE_IMAGE"], "-c", program,
        )  # fmt: skip

    def crash_and_come_back(self, service: str) -> None:
        """Crash it, and wait until it works again without a hand."""
        before = self.container(service)
        self.crash(service)
        self.until(service, f"{service} works again", lambda: self.is_healthy(service, but=before.started_at))

    def pause(self, service: str) -> None:
        """Freeze all processes of a container. runc gives up on one that starts a process meanwhile (cgroup v1)."""

        def is_frozen() -> bool:
            try:
                docker("pause", self.container(service).id)
            except AssertionError as error:
                if "unable to freeze" not in str(error):
                    raise
                return False
            return True

        eventually(f"{service} is frozen", is_frozen)

    def go_on(self, service: str) -> None:
        """Let them run again."""
        docker("unpause", self.container(service).id)

    def disconnect(self, service: str) -> None:
        """Take a container off the network; also this machine reaches it no more."""
        docker("network", "disconnect", self._network, self.container(service).id)

    def connect(self, service: str) -> None:
        """Put it back under its name."""
        docker("network", "connect", "--alias", service, self._network, self.container(service).id)

    def starve(self, service: str) -> None:
        """Use up a container's memory from inside of it, with its first process as the one that the system ends for it."""
        hog = "echo 1000 > /proc/1/oom_score_adj && head -c 4G /dev/zero | tail"
        # Its exit code says nothing: it is ended with its container, or before it.
        subprocess.run(
            ["docker", "exec", self.container(service).id, "sh", "-c", hog], capture_output=True, check=False,
            timeout=COMMAND_TIMEOUT_S,
        )  # fmt: skip

    @property
    def _network(self) -> str:
        return f"{self.name}_default"

    def is_healthy(self, service: str, *, but: str = "") -> bool:
        """Whether a container works; `but` is a start of it that does not count any more."""
        found = self.container(service)
        return found.health == "healthy" and found.started_at != but

    def await_health(self, services: Sequence[str] = (*SERVICES, *WORKERS)) -> float:
        """Wait until all are healthy; after how many seconds."""
        began = time.monotonic()
        for service in services:
            self.until(service, f"{service} is healthy", lambda one=service: self.is_healthy(one))
        return time.monotonic() - began

    def until(self, service: str, what: str, condition: Any) -> None:
        """Wait for a condition; with the end of a service's log where it does not come true."""
        try:
            eventually(what, condition, timeout_s=HEALTHY_TIMEOUT_S)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--tail', '30', service)}") from None


@contextmanager
def running_set(*files: str) -> Iterator[ComposeSet]:
    """One that is built, up and healthy for the length of a block."""
    made = ComposeSet(*files)
    try:
        made.build()
        made.start()
        yield made
    finally:
        made.remove()


def reconciled(demo: subprocess.Popen[str]) -> dict[str, Any]:
    """What a demo says, which found no difference."""
    out, told = demo.communicate(timeout=DEMO_TIMEOUT_S)
    assert demo.returncode == 0, f"exit code {demo.returncode}\n{told}\n{out}"
    proof: dict[str, Any] = json.loads(out)["proof"]
    assert [line for line in proof["records"] if line["difference"]] == []
    assert proof["state"]["difference"] == 0
    return proof
