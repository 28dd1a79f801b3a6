"""A TCP proxy with weather: what a network and a broker do to a client, on request and on loopback.

It stands at the address that the broker advertises, so that every connection passes through it, and is used by the
fault tests as well as by the measurements. It is a process of its own: what it costs must not be the client's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import psutil

from tradetape.console.local.kafka import Kafka
from tradetape.console.local.places import Places
from tradetape.console.local.ports import LOOPBACK, PortBook

CHUNK_BYTES = 65_536
RESET_AFTER_BYTES = 20_000
DELAY_S, JITTER_S = 0.2, 0.1
LOSS = 0.01
RETRANSMISSION_S = 0.6
"""What a lost packet costs a TCP connection, about: it arrives later, and all behind it too."""


class Weather(Enum):
    """What happens to connections."""

    FAIR = "up"
    REFUSING = "down"
    HANGING = "hanging"
    """Connections are taken, and nothing is ever answered."""
    RESETTING = "resetting connections"
    SLOW = "slow, 200 ms and 1 % loss"


class WeatherProxy:
    """Forwards to one address, as the weather allows. Its process ends when it is closed, or whoever started it is gone."""

    def __init__(self, port: int, target_port: int) -> None:
        command = [sys.executable, "-m", "bench.weather", str(port), str(target_port)]
        root = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=root
        )
        self.turn(Weather.FAIR)

    def turn(self, weather: Weather) -> None:
        """Change the weather; connections that stand are ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(weather.name, file=self._process.stdin)
        answered = self._process.stdout.readline().strip()
        assert answered == weather.name, f"the weather stays as it is: {answered or 'its process has ended'}"

    def close(self) -> None:
        """End every connection and stop listening."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


class _Forwarding:
    """What the proxy's process does."""

    def __init__(self, port: int, target_port: int) -> None:
        self._port = port
        self._target_port = target_port
        self._weather = Weather.FAIR
        self._rng = random.Random(7)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def obey(self) -> None:
        """Turn the weather to each line of stdin, until there are no more."""
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while name := (await orders.readline()).decode().strip():
            await self._turn(Weather[name])
            print(name, flush=True)
        await self._turn(Weather.REFUSING)

    async def _turn(self, weather: Weather) -> None:
        self._weather = weather
        ending = list(self._tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if weather is Weather.REFUSING and self._server is not None:
            self._server.close()
            self._server = None
        elif weather is not Weather.REFUSING and self._server is None:
            self._server = await asyncio.start_server(self._connected, LOOPBACK, self._port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            # An RST, not a farewell.
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._weather is Weather.HANGING:
            await asyncio.Event().wait()
        to_broker, from_broker = await asyncio.open_connection(LOOPBACK, self._target_port)
        try:
            both = (self._forward(reader, from_broker), self._forward(to_broker, writer))
            tasks = [asyncio.ensure_future(one) for one in both]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in tasks:
                    one.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            from_broker.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = RESET_AFTER_BYTES
        while data := await reader.read(CHUNK_BYTES):
            if self._weather is Weather.SLOW:
                lost = RETRANSMISSION_S if self._rng.random() < LOSS else 0.0
                await asyncio.sleep(DELAY_S + self._rng.uniform(-JITTER_S, JITTER_S) + lost)
            if self._weather is Weather.RESETTING:
                left -= len(data)
                if left <= 0:
                    return
            writer.write(data)
            await writer.drain()


class ExposedKafka(Kafka):
    """A Kafka that advertises another port than its own."""

    advertised_port = 0

    def prepare(self, port: int) -> None:
        """Lay out as always, then advertise the other port."""
        super().prepare(port)
        file = Path(self.marker)
        own, other = (f"advertised.listeners=PLAINTEXT://{LOOPBACK}:{one}" for one in (port, self.advertised_port))
        text = file.read_text(encoding="utf-8")
        assert own in text
        file.write_text(text.replace(own, other), encoding="utf-8")

    def begin(self) -> None:
        """Start it where it does not run, without waiting until it answers."""
        self._start()


class ExposedBroker:
    """A Kafka behind the weather. `address` is where clients go; `kafka` is the service itself."""

    def __init__(self, home: Path, cache: Path) -> None:
        places = Places(home=home, cache=cache)
        places.make()
        book = PortBook(home / "ports.json")
        self.kafka = ExposedKafka(places, book, fixed_ports=False)
        port = book.choose("weather", None)
        self.kafka.advertised_port = port
        self.address = f"{LOOPBACK}:{port}"
        self.proxy = WeatherProxy(port, self.kafka.up())

    def restart(self, away_s: float = 0.0) -> None:
        """SIGKILL the broker, start it again, and wait until it answers."""
        self.process().kill()
        time.sleep(away_s)
        self.kafka.up()

    def begin_restart(self) -> None:
        """SIGKILL the broker and start it again; `kafka.up()` waits until it answers."""
        self.process().kill()
        self.kafka.begin()

    def process(self) -> psutil.Process:
        """The broker's process."""
        found = self.kafka.running()
        assert found is not None, "the broker is down"
        return found[0]

    def close(self) -> None:
        """Stop both and remove the broker's data."""
        self.proxy.close()
        self.kafka.down()
        self.kafka.wipe()


@contextmanager
def exposed_broker(home: Path, cache: Path) -> Iterator[ExposedBroker]:
    """A broker behind the weather, gone at the end."""
    broker = ExposedBroker(home, cache)
    try:
        yield broker
    finally:
        broker.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_Forwarding(int(sys.argv[1]), int(sys.argv[2])).obey())
