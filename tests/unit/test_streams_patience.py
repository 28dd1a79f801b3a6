"""A worker that starts waits for a service that is not there yet, for so long, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tradetape.schemas.errors import NotRegistered, RegistryUnreachable
from tradetape.streams import patience
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


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Time that only waiting moves on."""
    now = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return lambda: now[0]


def test_what_is_there_is_not_waited_for(clock: Callable[[], float]) -> None:
    assert awaited(Service()) == "here"
    assert clock() == 100.0


@pytest.mark.parametrize("away", [StateUnavailable("Redis: away"), RegistryUnreachable("away")])
def test_a_service_that_is_away_is_asked_again_until_it_answers(away: Exception) -> None:
    service = Service(*[away] * 5)
    assert awaited(service) == "here"
    assert service.asked == 6


def test_when_patience_is_over_the_reason_is_raised(clock: Callable[[], float]) -> None:
    service = Service(*[StateUnavailable("Redis: away")] * 1_000)
    with pytest.raises(StateUnavailable, match="away"):
        awaited(service, patience_s=30.0)
    assert 100.0 < clock() <= 130.0


def test_what_waiting_does_not_mend_is_raised_at_once() -> None:
    service = Service(NotRegistered("push it"))
    with pytest.raises(NotRegistered):
        awaited(service)
    assert service.asked == 1
