"""TLS in front of a server that has none: the packaged Redis and PostgreSQL of the local stack are built without it.

Certificate, handshake and refusals are real; what is behind it goes over the loopback address in the clear.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

SSL_REQUEST = struct.pack(">ii", 8, 80_877_103)
"""What a client of PostgreSQL sends first; the answer is one byte, and then TLS begins."""
CHUNK_BYTES = 65_536
START_TIMEOUT_S = 10.0


class TlsProxy:
    """Terminates TLS on a free port of the loopback address, and passes everything on to the port that `target` tells."""

    def __init__(self, target: Callable[[], int], *, certificate: Path, key: Path, is_postgres: bool = False) -> None:
        self._target = target
        self._is_postgres = is_postgres
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_TIMEOUT_S)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop, and cut what is open."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(START_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        tls = None if self._is_postgres else self._context
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)

    async def _end(self) -> None:
        self._server.close()
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._is_postgres and not await self._starts_tls(reader, writer):
                return
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target())
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return
        await _first_done(_pass(reader, inner_writer), _pass(inner_reader, writer))
        for one in (writer, inner_writer):
            one.close()

    async def _starts_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Only whoever asks for TLS is let on, as `hostssl` alone in pg_hba.conf would have it."""
        if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
            writer.close()
            return False
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(self._context)
        return True


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        return


async def _first_done(*passing: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(one) for one in passing]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
