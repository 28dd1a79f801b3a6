"""The folder of credentials: nobody else reads it, what is there stays, and one thing can be renewed without the others."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from tradetape.console.access import authority
from tradetape.console.access.folder import SERVICES, Folder
from tradetape.console.access.roles import ROLES
from tradetape.console.errors import CredentialsError


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    # As Docker makes what it mounts.
    (tmp_path / "credentials").mkdir(mode=0o755)
    made = Folder(tmp_path / "credentials", redis_prefix="tradetape")
    made.make()
    return made


def contents(folder: Folder) -> dict[str, bytes]:
    """Every file, by its place."""
    return {str(one.relative_to(folder.path)): one.read_bytes() for one in folder.path.rglob("*") if one.is_file()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """The files that are not as they were."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_only_the_owner_reads_it(folder: Folder) -> None:
    for one in (folder.path, *folder.path.rglob("*")):
        mode = stat.S_IMODE(one.stat().st_mode)
        assert mode == (0o700 if one.is_dir() else 0o600), one


def test_making_it_again_changes_nothing(folder: Folder) -> None:
    before = contents(folder)
    assert folder.make() == []
    assert contents(folder) == before


def test_a_killed_make_is_gone_on_with(folder: Folder) -> None:
    lost = folder.path / "bot" / "kafka.password"
    before = contents(folder)
    lost.unlink()
    assert folder.make() == [Path("bot", "kafka.password")]
    assert changed(before, contents(folder)) == {"bot/kafka.password"}


def test_rotating_one_role_changes_its_passwords_and_what_redis_keeps_of_them(folder: Folder) -> None:
    before = contents(folder)
    folder.rotate("bot")
    assert changed(before, contents(folder)) == {"bot/kafka.password", "bot/redis.password", "redis/users.acl"}


def test_a_role_that_is_none_is_refused_with_those_that_are(folder: Folder) -> None:
    with pytest.raises(CredentialsError, match=r"no role boot .* approval, bot,"):
        folder.rotate("boot")


def test_renewed_certificates_are_trusted_by_whoever_trusted_the_old_ones(folder: Folder) -> None:
    before = contents(folder)
    folder.renew(["kafka.internal"])
    touched = changed(before, contents(folder))
    assert {name.rpartition("/")[2] for name in touched} == {
        "server.key", "server.crt", "server.pem", "client.key", "client.crt"
    }  # fmt: skip
    context = ssl.create_default_context(cafile=folder.path / "bot" / "ca.crt")
    for service in SERVICES:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(folder.path / service / "server.crt", folder.path / service / "server.key")
        for host in (service, "localhost", "127.0.0.1", "kafka.internal"):
            assert shake_hands(context, server, host), host


def test_a_role_is_given_its_own_passwords_and_no_others(folder: Folder) -> None:
    secrets = {name: content for name, content in contents(folder).items() if name.endswith(".password")}
    assert len(set(secrets.values())) == len(secrets) - 1  # the registry's is also PostgreSQL's, which makes its login
    for one in ROLES:
        own = contents(Folder(folder.path / one.name, redis_prefix=""))
        assert not [
            name for name, value in secrets.items() if not name.startswith(f"{one.name}/") and value in own.values()
        ]


def test_the_key_of_the_authority_is_with_nobody_else(folder: Folder) -> None:
    key = (folder.path / "authority" / "ca.key").read_bytes()
    assert [name for name, content in contents(folder).items() if key in content] == ["authority/ca.key"]


def test_a_certificate_for_a_client_is_none_for_a_server() -> None:
    made = authority.new_authority()
    client = authority.sign(made, "admin")
    assert b"BEGIN CERTIFICATE" in client.certificate
    assert authority.valid_until(client.certificate) > authority.valid_until(
        authority.sign(made, "x", days=1).certificate
    )


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bool:
    """Whether a client that dials this host trusts the server; all in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(sides)
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            return True
    return False
