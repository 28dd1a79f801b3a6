"""The folder of all credentials: an authority, a certificate for each service, a password for each role and service.

Each service and each role has a folder of its own, so that a container is given its own and no other. Folders have mode
0700 and files 0600 from their first moment on. Whatever is there stays, unless it is to be renewed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tradetape.console.access import authority, redis_users
from tradetape.console.access.authority import Certified
from tradetape.console.access.roles import ROLES, Role
from tradetape.console.errors import CredentialsError

REGISTRY = "registry"
SERVICES = ("kafka", "redis", "postgres", REGISTRY)
ADMIN = "admin"
"""Sets up the services: a client certificate for Kafka, a user of Redis, PostgreSQL's owner."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PASSWORD_BYTES = 24
OWNERS: Mapping[str, int] = {"kafka": 1_000, "redis": 999, "postgres": 999, "registry": 1_001}
"""The users that the official images run as; all others belong to our own image's."""
OUR_OWNER = 10_001
_AUTHORITY = "authority"


class Folder:
    """The credentials in one folder."""

    def __init__(self, path: Path, *, redis_prefix: str) -> None:
        self.path = path
        self._redis_prefix = redis_prefix

    def make(self, hosts: Iterable[str] = ()) -> list[Path]:
        """Make what is missing; the files that were made. `hosts` are names of the services besides their own and localhost.

        Raises CredentialsError.
        """
        return [*self._make_authority(), *self._make_certificates(tuple(hosts)), *self._make_passwords()]

    def renew(self, hosts: Iterable[str] = ()) -> list[Path]:
        """Certificates anew, signed by the same authority: nobody has to trust anything new. Raises CredentialsError."""
        self._authority()
        return list(self._make_certificates(tuple(hosts), anew=True))

    def rotate(self, name: str) -> list[Path]:
        """New passwords for a role; `access apply` tells the services. Raises CredentialsError."""
        held = [path for path in self._password_files() if _holder(path) == name and name != ADMIN]
        if not held:
            known = ", ".join(sorted({_holder(path) for path in self._password_files()} - {ADMIN}))
            raise CredentialsError(f"no role {name} has a password to rotate; there are {known}")
        for path in held:
            self._write(path, _new_password())
        self._hand_over()
        return held

    def password(self, name: str, service: str) -> str:
        """A role's password for a service. Raises CredentialsError."""
        return self._read(Path(name, f"{service}.password")).decode()

    def own(self) -> bool:
        """Let each folder belong to the user that its container runs as; False where we may not, since only root may."""
        if os.geteuid() != 0:
            return False
        os.chown(self.path, OUR_OWNER, OUR_OWNER)
        for folder in self.path.iterdir():
            if folder.is_dir() and folder.name != _AUTHORITY:
                owner = OWNERS.get(folder.name, OUR_OWNER)
                for one in (folder, *folder.iterdir()):
                    os.chown(one, owner, owner)
        return True

    def _make_authority(self) -> Iterator[Path]:
        key, certificate = Path(_AUTHORITY, "ca.key"), Path(_AUTHORITY, "ca.crt")
        if not (self.path / key).exists():
            made = authority.new_authority()
            # The key last: it says that both are there.
            self._write(certificate, made.certificate)
            self._write(key, made.key)
            yield key
            yield certificate
        for name in (*SERVICES, ADMIN, *(one.name for one in ROLES)):
            self._write(Path(name, "ca.crt"), self._read(certificate))

    def _make_certificates(self, hosts: Sequence[str], *, anew: bool = False) -> Iterator[Path]:
        signer = self._authority()
        for name in (*SERVICES, ADMIN):
            kind = "client" if name == ADMIN else "server"
            key, certificate = Path(name, f"{kind}.key"), Path(name, f"{kind}.crt")
            if (self.path / certificate).exists() and not anew:
                continue
            made = authority.sign(signer, name, () if name == ADMIN else (name, *LOOPBACK, *hosts))
            if name == "kafka":
                # Java reads key and certificate from one file.
                self._write(Path(name, "server.pem"), made.key + made.certificate)
            self._write(key, made.key)
            self._write(certificate, made.certificate)
            yield key
            yield certificate

    def _make_passwords(self) -> Iterator[Path]:
        for path in self._password_files():
            if not (self.path / path).exists():
                self._write(path, _new_password())
                yield path
        self._hand_over()

    def _hand_over(self) -> None:
        """What services themselves read: PostgreSQL when its data is made, Redis and the registry at each start."""
        of_registry = self.password(ADMIN, REGISTRY)
        self._write(Path("postgres", "password"), self.password(ADMIN, "postgres"))
        self._write(Path("postgres", "registry.password"), of_registry)
        self._write(Path(REGISTRY, "registry.properties"), f"apicurio.datasource.password={of_registry}\n")
        self._write(Path("redis", "users.acl"), self._users())

    def _password_files(self) -> Iterator[Path]:
        yield from (Path(ADMIN, f"{service}.password") for service in ("redis", "postgres"))
        yield Path(ADMIN, f"{REGISTRY}.password")
        for one in ROLES:
            for service in services_of(one):
                yield Path(one.name, f"{service}.password")

    def _users(self) -> str:
        passwords = {one.name: self.password(one.name, "redis") for one in ROLES if one.uses_redis}
        return redis_users.acl_file(passwords, admin=(ADMIN, self.password(ADMIN, "redis")), prefix=self._redis_prefix)

    def _authority(self) -> Certified:
        return Certified(self._read(Path(_AUTHORITY, "ca.key")), self._read(Path(_AUTHORITY, "ca.crt")))

    def _read(self, path: Path) -> bytes:
        try:
            return (self.path / path).read_bytes()
        except OSError as error:
            raise CredentialsError(
                f"{self.path / path} cannot be read: {error.strerror}; `tradetape credentials make` makes what is missing"
            ) from None

    def _write(self, path: Path, content: str | bytes) -> None:
        """Write a file whole or not at all, for its owner only; one that is as wanted is left alone."""
        target = self.path / path
        data = content.encode() if isinstance(content, str) else content
        try:
            for folder in (self.path, target.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                # One that was there before, made by whoever mounts it, may be open to all.
                folder.chmod(0o700)
            if target.exists() and target.read_bytes() == data:
                return
            fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(data)
            fresh.rename(target)
        except OSError as error:
            raise CredentialsError(f"cannot write {target}: {error.strerror}") from error


def _holder(path: Path) -> str:
    """Whose password a file holds. The registry's lies with the administrator, who tells PostgreSQL."""
    return REGISTRY if path.stem == REGISTRY else path.parent.name


def services_of(one: Role) -> list[str]:
    """The services that a role has a password for."""
    return ["kafka", *(["redis"] if one.uses_redis else []), *(["postgres"] if one.database else [])]


def _new_password() -> str:
    # Letters, digits, - and _ only: it goes through URLs, ACL files and shells unharmed.
    return secrets.token_urlsafe(PASSWORD_BYTES)
