"""Kafka's jars: taken from the cache when whole, fetched when missing or damaged, refused when they are other bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tradetape.console.errors import DownloadFailed
from tradetape.console.local import jars
from tradetape.console.local.jars import Fetch, Jar


class Remote:
    """A repository on no network: gives each jar these bytes, and remembers what it was asked for."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content
        self.asked: list[str] = []

    def __call__(self, repository: Path) -> Fetch:
        def fetch(jar: Jar) -> None:
            self.asked.append(jar.coordinate)
            path = jar.path(repository)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.content[jar.coordinate])

        return fetch


CONTENT = {"org.example:first:1.0": b"first jar", "org.example:second:2.0": b"second jar"}
JARS = [Jar(coordinate, hashlib.sha256(content).hexdigest()) for coordinate, content in CONTENT.items()]


def unreachable(_: Path) -> Fetch:
    def fetch(jar: Jar) -> None:
        raise DownloadFailed(f"there is no network, and {jar.coordinate} was asked for")

    return fetch


def test_an_empty_cache_is_filled_in_mavens_layout(tmp_path: Path) -> None:
    remote = Remote(CONTENT)
    paths = jars.ensure(tmp_path, JARS, source=remote)
    assert sorted(remote.asked) == sorted(CONTENT)
    assert paths == [
        tmp_path / "org/example/first/1.0/first-1.0.jar",
        tmp_path / "org/example/second/2.0/second-2.0.jar",
    ]
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())


def test_a_full_cache_needs_no_network(tmp_path: Path) -> None:
    paths = jars.ensure(tmp_path, JARS, source=Remote(CONTENT))
    assert jars.ensure(tmp_path, JARS, source=unreachable) == paths


def test_what_is_no_plain_jar_lies_under_its_packaging_and_classifier(tmp_path: Path) -> None:
    whole = Jar("org.example:server:3.0:tar.gz:all", "")
    assert whole.path(tmp_path) == tmp_path / "org/example/server/3.0/server-3.0-all.tar.gz"


@pytest.mark.parametrize("damage", [b"", b"first ja", b"first jat"], ids=["emptied", "cut short", "changed"])
def test_only_a_damaged_jar_is_fetched_again(tmp_path: Path, damage: bytes) -> None:
    first, _ = jars.ensure(tmp_path, JARS, source=Remote(CONTENT))
    first.write_bytes(damage)
    remote = Remote(CONTENT)
    jars.ensure(tmp_path, JARS, source=remote)
    assert remote.asked == ["org.example:first:1.0"]
    assert first.read_bytes() == b"first jar"


def test_other_bytes_than_those_listed_are_refused_and_not_kept(tmp_path: Path) -> None:
    remote = Remote({**CONTENT, "org.example:second:2.0": b"somebody else's jar"})
    with pytest.raises(DownloadFailed, match=r"org\.example:second:2\.0 is not the file"):
        jars.ensure(tmp_path, JARS, source=remote)
    assert not JARS[1].path(tmp_path).exists()


def test_a_failed_fetch_leaves_what_was_fetched_and_the_next_one_goes_on(tmp_path: Path) -> None:
    jars.ensure(tmp_path, JARS[:1], source=Remote(CONTENT))
    with pytest.raises(DownloadFailed, match="no network"):
        jars.ensure(tmp_path, JARS, source=unreachable)
    remote = Remote(CONTENT)
    jars.ensure(tmp_path, JARS, source=remote)
    assert remote.asked == ["org.example:second:2.0"]


def test_the_shipped_list_names_each_jar_once_with_a_digest() -> None:
    listed = jars.listed("kafka")
    names = [jar.coordinate.rpartition(":")[0] for jar in listed]
    assert len(set(names)) == len(names)
    assert {"org.apache.kafka:kafka_2.13:4.4.0", "org.slf4j:slf4j-simple:1.7.36"} <= {jar.coordinate for jar in listed}
    for jar in listed:
        assert len(bytes.fromhex(jar.sha256)) == hashlib.sha256().digest_size
