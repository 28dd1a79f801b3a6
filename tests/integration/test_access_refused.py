"""A wrong password and a certificate that is not to be trusted: one line that says what to do, exit code 3, and no secret."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from console_rig import clean_environment, tradetape
from scripted_http import Answer, serving
from secure_stack import SecureStack
from streams_rig import candle, now
from tls_proxy import TlsProxy
from tradetape.console.access import authority
from tradetape.console.access.authority import Certified
from tradetape.producers import Producer
from tradetape.producers.settings import load
from tradetape.schemas import CATALOGUE
from waiting import eventually

REGISTRY_PATH = "/apis/ccompat/v7"
ASKED = [
    f"{REGISTRY_PATH}/{path}"
    for one in CATALOGUE
    for path in (f"config/{CATALOGUE.subject(one)}", f"subjects/{CATALOGUE.subject(one)}/versions")
]
SECRET = "hunter2-of-nobody"
EMIT_LIMIT_S = 1.0
COMMANDS = {
    "kafka": ("positions", ("work", "positions")),
    "redis": ("state", ("work", "state")),
    "postgres": ("history", ("work", "history")),
    "registry": ("reader", ("schemas", "push", "--dry-run")),
}
"""By service: the role, and a command of it that needs the service."""
NAMES = {"kafka": "Kafka", "redis": "Redis", "postgres": "PostgreSQL", "registry": "the schema registry"}
REASONS = {
    "expired": "its certificate has expired",
    "unknown": "its certificate is signed by nobody whom we trust",
    "elsewhere": "its certificate is made out to another host",
}


class Doors:
    """Servers that show a certificate with a fault, whatever is behind them."""

    def __init__(self, folder: Path, signer: Certified) -> None:
        long_ago = datetime.now(UTC) - timedelta(days=30)
        made = {
            "expired": authority.sign(signer, "x", ("127.0.0.1",), days=1, now=long_ago),
            "unknown": authority.sign(authority.new_authority(), "x", ("127.0.0.1",)),
            "elsewhere": authority.sign(signer, "x", ("elsewhere.example",)),
            "right": authority.sign(signer, "x", ("127.0.0.1",)),
        }
        self._open = ExitStack()
        self._files = {}
        for name, one in made.items():
            self._files[name] = folder / f"{name}.crt", folder / f"{name}.key"
            self._files[name][0].write_bytes(one.certificate)
            self._files[name][1].write_bytes(one.key)

    def address(self, fault: str, *, target: Callable[[], int] = lambda: 9, is_postgres: bool = False) -> str:
        """A door with this fault, host:port."""
        certificate, key = self._files[fault]
        proxy = TlsProxy(target, certificate=certificate, key=key, is_postgres=is_postgres)
        self._open.enter_context(closing(proxy))
        return f"127.0.0.1:{proxy.port}"

    def close(self) -> None:
        """Shut all."""
        self._open.close()


@pytest.fixture
def doors(secure_stack: SecureStack, tmp_path: Path) -> Iterator[Doors]:
    own = secure_stack.folder.path / "authority"
    made = Doors(tmp_path, Certified((own / "ca.key").read_bytes(), (own / "ca.crt").read_bytes()))
    yield made
    made.close()


@pytest.fixture(scope="module")
def users(secure_stack: SecureStack) -> SecureStack:
    """The users of Kafka and Redis; what they may do does not matter here."""
    secure_stack.make_users()
    return secure_stack


def environment_of(stack: SecureStack, service: str, home: Path) -> dict[str, str]:
    """The environment of the service's role, with a wrong password for everything that the test does not reach."""
    found = clean_environment(home, **stack.role_environment(COMMANDS[service][0]))
    (home / "password").write_text(SECRET, encoding="utf-8")
    if service == "registry":
        found["SCHEMA_REGISTRY_URL"] = f"https://reader@127.0.0.1:9{REGISTRY_PATH}"
        found["TRADETAPE_SCHEMA_REGISTRY_PASSWORD_FILE"] = str(home / "password")
    return found


def refusal(service: str, environment: dict[str, str]) -> str:
    """The one line that a command says, which ends with exit code 3."""
    began = time.monotonic()
    found = tradetape(*COMMANDS[service][1], environment=environment)
    assert found.returncode == 3, (found.returncode, found.stdout, found.stderr, time.monotonic() - began)
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert SECRET not in line
    for path in Path(environment["TRADETAPE_CA_FILE"]).parent.glob("*.password"):
        assert path.read_text(encoding="utf-8") not in line
    return line


@pytest.mark.parametrize("fault", REASONS)
@pytest.mark.parametrize("service", COMMANDS)
def test_a_certificate_that_is_not_to_be_trusted_is_told_in_one_line(
    users: SecureStack, doors: Doors, tmp_path: Path, service: str, fault: str
) -> None:
    environment = environment_of(users, service, tmp_path)
    address = doors.address(fault, is_postgres=service == "postgres")
    variables = {
        "kafka": ("KAFKA_BOOTSTRAP_SERVERS", address),
        "redis": ("REDIS_URL", f"rediss://state@{address}/0"),
        "postgres": ("DATABASE_URL", f"postgresql://history@{address}/tradetape"),
        "registry": ("SCHEMA_REGISTRY_URL", f"https://reader@{address}{REGISTRY_PATH}"),
    }
    name, value = variables[service]
    line = refusal(service, {**environment, name: value})
    assert NAMES[service] in line
    assert REASONS[fault] in line
    assert "TRADETAPE_CA_FILE" in line


@pytest.mark.parametrize("service", ["kafka", "redis", "postgres"])
def test_a_wrong_password_is_told_in_one_line(users: SecureStack, tmp_path: Path, service: str) -> None:
    environment = environment_of(users, service, tmp_path)
    variables = {
        "kafka": "TRADETAPE_KAFKA_SASL_PASSWORD_FILE", "redis": "TRADETAPE_REDIS_PASSWORD_FILE",
        "postgres": "TRADETAPE_DATABASE_PASSWORD_FILE",
    }  # fmt: skip
    line = refusal(service, {**environment, variables[service]: str(tmp_path / "password")})
    assert f"{NAMES[service]}" in line
    assert "does not let us in" in line
    assert variables[service] in line


def test_a_registry_that_knows_another_password_is_told_in_one_line(
    users: SecureStack, doors: Doors, tmp_path: Path
) -> None:
    with serving({f"GET {one}": Answer(401) for one in ASKED}) as server:
        address = doors.address("right", target=lambda: server.port)
        url = f"https://reader@{address}{REGISTRY_PATH}"
        line = refusal("registry", {**environment_of(users, "registry", tmp_path), "SCHEMA_REGISTRY_URL": url})
    assert "the schema registry" in line
    assert "does not let us in" in line
    assert "SCHEMA_REGISTRY_URL" in line
    assert server.asked[0].authorization is not None


def test_a_bot_with_a_wrong_password_goes_on_and_says_so(users: SecureStack, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET, encoding="utf-8")
    settings = load({
        **users.role_environment("bot"), "TRADETAPE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
    })  # fmt: skip
    with Producer.from_env(source="bot", settings=settings) as bot:
        began = time.monotonic()
        bot.emit(candle(now().replace(second=0, microsecond=0)))
        assert time.monotonic() - began < EMIT_LIMIT_S
        eventually("the reason", lambda: "does not let us in" in (bot.health().last_error or ""))
        told = bot.health()
        assert not told.connected
        assert SECRET not in repr(told)
        bot.close(0.1)
