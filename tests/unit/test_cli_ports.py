"""Ports of the local stack: the last one, the preferred one or any, whichever is free, and never one for two."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tradetape.console.local.ports import LOOPBACK, PortBook, any_free, is_free


@pytest.fixture
def book(tmp_path: Path) -> PortBook:
    return PortBook(tmp_path / "ports.json")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield int(listener.getsockname()[1])


def test_a_port_that_is_listened_on_is_not_free(taken: int) -> None:
    assert not is_free(taken)


def test_the_preferred_port_is_taken_when_it_is_free(book: PortBook) -> None:
    preferred = any_free()
    assert book.choose("redis", preferred) == preferred


def test_another_port_is_taken_when_the_preferred_one_is_in_use(book: PortBook, taken: int) -> None:
    chosen = book.choose("redis", taken)
    assert chosen != taken
    assert is_free(chosen)


def test_the_last_port_is_taken_again_before_the_preferred_one(tmp_path: Path, taken: int) -> None:
    path = tmp_path / "ports.json"
    chosen = PortBook(path).choose("redis", taken)
    assert PortBook(path).choose("redis", any_free()) == chosen


def test_a_last_port_that_is_in_use_now_gives_way(book: PortBook) -> None:
    chosen = book.choose("redis", None)
    with socket.create_server((LOOPBACK, chosen)):
        assert book.choose("redis", None) != chosen


def test_two_services_never_share_a_port(book: PortBook) -> None:
    preferred = any_free()
    names = [f"service{number}" for number in range(24)]
    with ThreadPoolExecutor(len(names)) as pool:
        chosen = list(pool.map(lambda name: book.choose(name, preferred), names))
    assert len(set(chosen)) == len(names)
    assert [book.remembered(name) for name in names] == chosen


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"redis": []}',
        b'{"redis": "16379"}',
        b'{"redis": 0}',
        b'{"redis": 70000}',
        b'{"redis": 22}',
    ],
)
def test_a_damaged_book_is_one_without_that_entry(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "ports.json"
    path.write_bytes(text)
    book = PortBook(path)
    assert book.remembered("redis") is None
    assert book.choose("redis", None) in range(1024, 65536)
