"""Services that somebody else runs as the demo's ground, with the workers that are at work there: `--services environment`.

Nothing is started, prepared or stopped. Whatever workers there are besides state and history are waited for as well:
what they make of the run's events is on the tape, and has to be in the history too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException

from tradetape.console.demo.ground import Crew
from tradetape.console.demo.roles import NEEDED, TRADING, Role
from tradetape.console.errors import DemoFailed
from tradetape.console.local.places import Places, default_cache, default_home
from tradetape.console.topics import admin_client
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings
from tradetape.schemas import RunMode
from tradetape.streams.errors import BrokersUnreachable

ANSWER_TIMEOUT_S = 15.0


class GivenGround:
    """The services that the environment names."""

    rest_s = 3.0
    next_commands: Sequence[str] = ("tradetape doctor",)

    def __init__(self) -> None:
        self._places = Places(home=default_home(), cache=default_cache())

    @property
    def logs(self) -> Path:
        """This machine's, or container's, own."""
        return self._places.logs

    def environment(self) -> Mapping[str, str]:
        """The environment as it is."""
        self._places.make()
        return dict(os.environ)

    def prepare(self, settings: Settings) -> None:
        """Refuse to play where real money is at stake; whoever runs the services has prepared them."""
        if settings.mode() is not RunMode.PAPER:
            raise DemoFailed(f"the demo plays on paper, and TRADETAPE_RUN_MODE is {settings.run_mode}")

    @contextmanager
    def workers(self, venue: str) -> Iterator[Crew]:
        """Somebody else's."""
        yield Unattended()

    def roles(self, settings: Settings) -> Sequence[Role]:
        """Those whose group has members."""
        at_work = _with_members(KafkaSettings.of(settings), [role.group for role in (*NEEDED, *TRADING)])
        for role in NEEDED:
            if role.group not in at_work:
                raise DemoFailed(
                    f"no {role.name} worker is at work (consumer group {role.group}); start `tradetape work {role.name}`"
                )
        return [role for role in (*NEEDED, *TRADING) if role.group in at_work]


class Unattended:
    """Workers that others start, watch and stop."""

    def check(self) -> None:
        """Nobody tells us; a run that stands still is given up."""

    def stop(self) -> Mapping[str, int]:
        """They go on."""
        return {}


def _with_members(kafka: KafkaSettings, groups: Sequence[str]) -> set[str]:
    admin = admin_client(kafka)
    found = set()
    try:
        for name, asked in admin.describe_consumer_groups(list(groups), request_timeout=ANSWER_TIMEOUT_S).items():
            if asked.result().members:
                found.add(name)
    except KafkaException as error:
        raise BrokersUnreachable(f"Kafka does not say who is at work: {error.args[0].str()}") from error
    return found
