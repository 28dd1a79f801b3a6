"""A worker that starts waits for a service that is not there yet, for so long, and for nothing else."""

from __future__ import annotations

import pytest

from tradetape.schemas.errors import NotRegistered, RegistryUnreachable
from tradetape.streams.errors import StateUnavailable
from tradetape.streams.patience import awaited


class Service:
    """Raises what it is told, one after the other, and then answers."""

    def __init__(self, *raised: Exception) -> None:
        self.raised = list(raised)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.raised:
            raise self.raised.pop(0)
        return "here"


class Time:
    """Only waiting moves it on."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited_for(service: Service, time: Time, *, patience_s: float = 60.0) -> str:
    return awaited(service, patience_s=patience_s, clock=time.clock, sleep=time.sleep)


def test_what_is_there_is_not_waited_for() -> None:
    time = Time()
    assert waited_for(Service(), time) == "here"
    assert time.now == 100.0


@pytest.mark.parametrize("away", [StateUnavailable("Redis: away"), RegistryUnreachable("away")])
def test_a_service_that_is_away_is_asked_again_until_it_answers(away: Exception) -> None:
    service = Service(*[away] * 5)
    assert waited_for(service, Time()) == "here"
    assert service.asked == 6


def test_when_patience_is_over_the_reason_is_raised() -> None:
    time, service = Time(), Service(*[StateUnavailable("Redis: away")] * 1_000)
    with pytest.raises(StateUnavailable, match="away"):
        waited_for(service, time, patience_s=30.0)
    assert 100.0 < time.now <= 130.0


def test_what_waiting_does_not_mend_is_raised_at_once() -> None:
    service = Service(NotRegistered("push it"))
    with pytest.raises(NotRegistered):
        waited_for(service, Time())
    assert service.asked == 1
