"""Waiting grows, has a ceiling, and is never in step with other workers."""

from __future__ import annotations

from tradetape.streams.backoff import Backoff


def test_each_wait_lies_between_half_the_first_and_a_doubling_capped_ceiling() -> None:
    for _ in range(200):
        backoff = Backoff(first_s=0.1, longest_s=2.0)
        for ceiling in (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0):
            assert 0.05 <= backoff.next_s() <= ceiling
        assert backoff.attempts == 8


def test_it_stays_at_its_ceiling_however_long_it_goes_on() -> None:
    backoff = Backoff(longest_s=5.0)
    assert max(backoff.next_s() for _ in range(5_000)) <= 5.0


def test_two_workers_that_failed_together_do_not_come_back_together() -> None:
    first, second = Backoff(), Backoff()
    assert [first.next_s() for _ in range(8)] != [second.next_s() for _ in range(8)]
