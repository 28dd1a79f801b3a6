"""The local stack with TLS and authentication on, for tests: Kafka by itself, Redis and PostgreSQL behind a TLS proxy.

Nobody gets in without a password, and the rights of the roles hold. The suite itself logs in as an administrator; tests
of a role take that role's environment.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis as redis_client
from confluent_kafka.admin import AdminClient

from tls_proxy import TlsProxy
from tradetape.console.access import kafka_rights, logins, redis_users
from tradetape.console.access.folder import ADMIN, Folder, services_of
from tradetape.console.access.role_environment import environment_of
from tradetape.console.access.roles import ROLES, role
from tradetape.console.local import ports
from tradetape.console.local.kafka import Kafka
from tradetape.console.local.ports import PortBook
from tradetape.console.local.postgres import OWNER, Postgres
from tradetape.console.local.redis import Redis
from tradetape.console.local.stack import OUTBOX_VARIABLE, RUN_MODE, LocalStack
from tradetape.producers.settings import kafka_variable
from tradetape.schemas import CATALOGUE
from tradetape.sinks.history.migrate import migrate
from tradetape.streams.state.keys import DEFAULT_PREFIX

SUITE = "suite"
"""A user of Kafka for whom no rights are asked."""
SUITE_PASSWORD = "only-for-tests"
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
DEADLINE_S = 30.0
ADDRESSES = ("kafka", "redis", "postgres")


class SecureKafka(Kafka):
    """SASL/SCRAM over TLS for clients; certificates on both sides among brokers and controllers; nothing allowed by default."""

    credentials: Path

    def prepare(self, port: int) -> None:
        self.ports.choose("kafka-broker", None)
        super().prepare(port)

    def properties(self, port: int, controller: int, data: Path) -> str:
        plain = super().properties(port, controller, data)
        kept = [one for one in plain.splitlines() if "listener" not in one]
        broker, own = self.ports.remembered("kafka-broker"), self.credentials / "kafka"
        return "\n".join([
            *kept,
            f"listeners=CLIENT://127.0.0.1:{port},BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=CLIENT://127.0.0.1:{port},BROKER://127.0.0.1:{broker}",
            "controller.listener.names=CONTROLLER",
            "inter.broker.listener.name=BROKER",
            "listener.security.protocol.map=CLIENT:SASL_SSL,BROKER:SSL,CONTROLLER:SSL",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={own / 'server.pem'}",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={own / 'ca.crt'}",
            "listener.name.broker.ssl.client.auth=required",
            "listener.name.controller.ssl.client.auth=required",
            "sasl.enabled.mechanisms=SCRAM-SHA-512",
            f"listener.name.client.scram-sha-512.sasl.jaas.config={SCRAM_MODULE} required;",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            f"super.users=User:CN=kafka;User:CN={ADMIN};User:{SUITE}",
            "",
        ])  # fmt: skip

    def client_options(self, port: int) -> Mapping[str, str]:
        own = self.credentials / ADMIN
        return {
            "bootstrap.servers": f"{ports.LOOPBACK}:{self.ports.remembered('kafka-broker')}",
            "security.protocol": "SSL",
            "ssl.ca.location": str(own / "ca.crt"),
            "ssl.certificate.location": str(own / "client.crt"),
            "ssl.key.location": str(own / "client.key"),
        }


class SecureRedis(Redis):
    """Users from the file of credentials; nobody without a name."""

    credentials: Path

    def prepare(self, port: int) -> None:
        super().prepare(port)
        # The packaged server is older than rules that tell reading from writing.
        users = (self.credentials / "redis" / "users.acl").read_text(encoding="utf-8").replace("%R~", "~")
        (self.places.home / "redis" / "users.acl").write_text(users, encoding="utf-8")
        with Path(self.marker).open("a", encoding="utf-8") as settings:
            settings.write(f'aclfile "{self.places.home / "redis" / "users.acl"}"\n')

    def answers(self, port: int) -> bool:
        try:
            return bool(self.admin(port).ping())
        except redis_client.RedisError:
            return False

    def admin(self, port: int) -> redis_client.Redis:
        """A client that may do everything, without TLS."""
        password = (self.credentials / ADMIN / "redis.password").read_text(encoding="utf-8")
        return redis_client.Redis(port=port, username=ADMIN, password=password, socket_timeout=5)


class SecureStack(LocalStack):
    """As the local stack; its environment leads through TLS and holds what the suite logs in with."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, fixed_ports=False)
        self.folder = Folder(home / "credentials", redis_prefix=DEFAULT_PREFIX)
        self._book = PortBook(self.places.home / "ports.json")
        self._kafka = SecureKafka(self.places, self._book, fixed_ports=False)
        self._redis = SecureRedis(self.places, self._book, fixed_ports=False)
        self._kafka.credentials = self._redis.credentials = self.folder.path
        self._postgres = Postgres(self.places, self._book, fixed_ports=False)
        self.services = (self._kafka, self._postgres, self._redis)
        self._proxies: dict[str, TlsProxy] = {}

    @property
    def ca_file(self) -> Path:
        """The authority's certificate."""
        return self.folder.path / "authority" / "ca.crt"

    def up(self, *, registry: bool = False) -> dict[str, str]:
        """Start everything, and TLS before it."""
        self.places.make()
        self.folder.make()
        super().up()
        kafka_rights.make_users(self.kafka_admin(), {SUITE: SUITE_PASSWORD})
        for name in ("redis", "postgres"):
            if name not in self._proxies:
                self._proxies[name] = self._proxy(name)
        return self.environment()

    def _proxy(self, name: str) -> TlsProxy:
        own = self.folder.path / name
        return TlsProxy(
            lambda: self._port(name), certificate=own / "server.crt", key=own / "server.key",
            is_postgres=name == "postgres",
        )  # fmt: skip

    def down(self, *, wipe: bool = False) -> list[str]:
        """Stop everything."""
        for one in self._proxies.values():
            one.close()
        self._proxies.clear()
        stopped = super().down(wipe=wipe)
        if wipe:
            shutil.rmtree(self.folder.path, ignore_errors=True)
        return stopped

    def environment(self) -> dict[str, str]:
        """What leads the suite itself to the services; its addresses hold all that it takes to log in."""
        if not self._proxies:
            return {}
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.address("kafka"),
            **{kafka_variable(name): value for name, value in self.kafka_options().items()},
            "REDIS_URL": f"rediss://{ADMIN}:{self._secret('redis')}@{self.address('redis')}/0?ssl_ca_certs={self.ca_file}",
            "DATABASE_URL": f"postgresql://{OWNER}:{self._owner_password()}@{self.address('postgres')}/{OWNER}"
            f"?sslmode=verify-full&sslrootcert={self.ca_file}",
            **RUN_MODE,
            OUTBOX_VARIABLE: str(self.places.outboxes),
        }

    def kafka_options(self) -> dict[str, str]:
        """librdkafka's options of the suite's own clients."""
        return {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": SUITE,
            "sasl.password": SUITE_PASSWORD, "ssl.ca.location": str(self.ca_file),
        }  # fmt: skip

    def address(self, service: str) -> str:
        """Where clients find a service, host:port."""
        port = self._proxies[service].port if service in self._proxies else self._port(service)
        return f"{ports.LOOPBACK}:{port}"

    def role_environment(self, name: str, *, database: str = OWNER) -> dict[str, str]:
        """The environment of a process that has a role."""
        addresses = {one: self.address(one) for one in ADDRESSES}
        return environment_of(role(name), self.folder.path / name, addresses, database=database)

    def kafka_admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient(dict(self._kafka.client_options(0)))

    def redis_admin(self) -> redis_client.Redis:
        """A client that may do everything."""
        return self._redis.admin(self._port("redis"))

    def make_users(self) -> None:
        """Let the roles log in to Kafka and Redis, and to PostgreSQL's own database."""
        with psycopg.connect(self.environment()["DATABASE_URL"], autocommit=True) as connection:
            migrate(self.environment()["DATABASE_URL"])
            logins.apply(connection, self._passwords("postgres"))
        kafka_rights.apply(self.kafka_admin(), CATALOGUE, passwords=self._passwords("kafka"))
        with self.redis_admin() as client:
            redis_users.apply(client, self._passwords("redis"), prefix=DEFAULT_PREFIX)

    def _passwords(self, service: str) -> dict[str, str]:
        holders = [one.name for one in ROLES if service in services_of(one)]
        return {name: self.folder.password(name, service) for name in holders}

    def _port(self, service: str) -> int:
        port = self._book.remembered(service)
        assert port is not None
        return port

    def _secret(self, service: str) -> str:
        return self.folder.password(ADMIN, service)

    def _owner_password(self) -> str:
        plain = self._postgres.variables(self._port("postgres"))["DATABASE_URL"]
        return urlsplit(plain).password or ""
