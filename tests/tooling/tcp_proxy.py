"""A TCP proxy on the loopback address that cuts a connection at a chosen request, before or after it was answered."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

CHUNK_BYTES = 65_536


class _Cut(NamedTuple):
    pattern: bytes
    is_delivered: bool
    spared: int


class TcpProxy:
    """Forwards every connection to one address. Cutting closes both sides at once."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        """How many connections were cut on request."""
        self._cut: _Cut | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut_at(self, pattern: bytes, *, is_delivered: bool, spared: int = 0) -> None:
        """Cut the connection of the next request that holds the pattern, after so many that are `spared`.

        A request that `is_delivered` reaches the server, and its answer is lost; one that is not reaches nobody.
        """
        self._cut = _Cut(pattern, is_delivered, spared)

    def close(self) -> None:
        """Cut everything and stop."""
        # close() alone would not wake a thread that is in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            found = list(self._open)
        _close(*found)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            gate = threading.Lock()
            for work in (self._requests, self._answers):
                thread = threading.Thread(target=work, args=(client, server, gate), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _requests(self, client: socket.socket, server: socket.socket, gate: threading.Lock) -> None:
        with self._closing(client, server), contextlib.suppress(OSError):
            while data := client.recv(CHUNK_BYTES):
                if (cut := self._due(data)) is None:
                    server.sendall(data)
                    continue
                if cut.is_delivered:
                    # From here on no answer passes; the first byte of one says that the request was carried out.
                    with gate:
                        server.sendall(data)
                        server.recv(1, socket.MSG_PEEK)
                        _close(client)
                return

    def _answers(self, client: socket.socket, server: socket.socket, gate: threading.Lock) -> None:
        with self._closing(client, server), contextlib.suppress(OSError):
            while server.recv(1, socket.MSG_PEEK):
                with gate:
                    client.sendall(server.recv(CHUNK_BYTES))

    def _due(self, data: bytes) -> _Cut | None:
        cut = self._cut
        if cut is None or cut.pattern not in data:
            return None
        if cut.spared:
            self._cut = cut._replace(spared=cut.spared - 1)
            return None
        self._cut = None
        self.cuts += 1
        return cut

    @contextmanager
    def _closing(self, *both: socket.socket) -> Iterator[None]:
        try:
            yield
        finally:
            _close(*both)
            with self._lock:
                self._open.difference_update(both)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        # shutdown() reaches a thread that is in recv(), which close() does not.
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
