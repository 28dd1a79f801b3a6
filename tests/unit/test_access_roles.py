"""The declaration of roles says what it is there to say, and gives each worker what its code asks for."""

from __future__ import annotations

import pytest

from tradetape.console.access import kafka_rights, redis_users
from tradetape.console.access.roles import ROLES, Role, role, topics_read, topics_written
from tradetape.schemas import CATALOGUE
from tradetape.schemas.catalogue import Delivery
from tradetape.streams.processors.projections import PROJECTIONS
from tradetape.streams.state.keys import PATTERNS

ONLY_APPROVAL = {"tradetape.trades", "tradetape.signal-decisions"}


def writers(topic: str) -> set[str]:
    """Who may write to a topic, people aside."""
    return {one.name for one in ROLES if topic in topics_written(one, CATALOGUE) and not one.rules_topics}


@pytest.mark.parametrize("topic", sorted(ONLY_APPROVAL))
def test_only_approval_writes_trades_and_decisions(topic: str) -> None:
    assert writers(topic) == {"approval"}


def test_a_bot_writes_signals_and_market_topics_only() -> None:
    market = {CATALOGUE.topic_name(one) for one in CATALOGUE if one.delivery is Delivery.MARKET}
    assert topics_written(role("bot"), CATALOGUE) == market | {"tradetape.trade-signals"}


def test_what_happened_to_a_trade_is_told_by_one_role_each() -> None:
    told = {topic: writers(f"tradetape.{topic}") for topic in ("trade-dispatches", "fills", "trades-closed")}
    assert told == {"trade-dispatches": {"dispatch"}, "fills": {"dispatch"}, "trades-closed": {"positions"}}


def test_whoever_reads_only_writes_nothing() -> None:
    reader = role("reader")
    assert topics_written(reader, CATALOGUE) == set()
    assert reader.keys_written == ()
    assert not {"set", "del", "hset", "evalsha", "eval"} & set(reader.commands)


def test_every_worker_that_joins_a_group_may_write_dead_letters() -> None:
    assert {one.name for one in ROLES if one.joins_group and not one.writes_letters} == set()


def test_the_state_worker_may_read_what_it_projects() -> None:
    wanted = {CATALOGUE.topic_name(CATALOGUE.by_record(record)) for record in PROJECTIONS}
    assert wanted <= topics_read(role("state"), CATALOGUE)


def test_every_kind_of_key_is_written_by_the_role_that_owns_it() -> None:
    owners = {"state": "state", "approval": "approval", "trading code": "bot"}
    for pattern in PATTERNS:
        wrote = {one.name for one in ROLES if pattern.kind in one.keys_written}
        assert wrote == {owners[pattern.owner]}, pattern.kind


@pytest.mark.parametrize("of", [one for one in ROLES if one.uses_redis], ids=lambda of: of.name)
def test_no_role_is_given_a_command_that_reaches_beyond_its_keys(of: Role) -> None:
    words = redis_users.rules(of, prefix="tradetape")
    assert not {"+flushall", "+flushdb", "+eval", "+config", "+keys", "+restore", "+swapdb"} & (
        set(words) - ({"+keys"} if of.name == "operator" else set())
    )
    if of.name != "operator":
        assert "+@all" not in words
        assert words.index("-@all") < min(place for place, word in enumerate(words) if word.startswith("+"))


def test_a_server_that_cannot_tell_reading_from_writing_is_not_sent_what_it_does_not_know() -> None:
    told = redis_users.rules(role("reader"), prefix="tradetape", tells_reading=False)
    assert "~tradetape*" in told
    assert not [word for word in told if word.startswith("%")]


def test_nobody_without_a_name_gets_into_redis() -> None:
    text = redis_users.acl_file({"bot": "secret"}, admin=("admin", "other"), prefix="tradetape")
    assert text.splitlines()[0] == "user default off -@all"
    assert "secret" not in text


def test_rights_in_kafka_are_of_single_topics_for_all_but_people() -> None:
    for one in ROLES:
        of_topics = [right for right in kafka_rights.rights(one, CATALOGUE) if right.kind.name == "TOPIC"]
        assert any(right.pattern.name != "LITERAL" for right in of_topics) == one.rules_topics, one.name
