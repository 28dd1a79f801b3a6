"""The one declaration of who may do what: compose, the tests' services and `tradetape doctor --role` all go by it.

A role is a user of the same name in Kafka and Redis and a login in PostgreSQL. What is not declared here is refused.
"""

from __future__ import annotations

import msgspec

from tradetape.console.errors import UsageError
from tradetape.schemas import Catalogue
from tradetape.streams.state.keys import PATTERNS

_ALL = "*"
_STATE_KINDS = tuple(dict.fromkeys(one.kind for one in PATTERNS if one.owner == "state"))
_SHARED_KINDS = tuple(dict.fromkeys(one.kind for one in PATTERNS if one.owner == "trading code"))

_LOOK = ("ping", "time", "info", "multi", "exec", "discard")
_READ = (
    "get",
    "hget",
    "hmget",
    "hgetall",
    "exists",
    "pttl",
    "scard",
    "type",
    "scan",
    "object|encoding",
    "memory|usage",
)
_RUN = ("evalsha", "script|load")
"""Redis forgets scripts when it restarts, so whoever runs one may load it. What it does has its caller's rights, no more."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One role. `writes` and `reads` are records of the catalogue, "*" for all; Redis' keys are told by their kind."""

    name: str
    does: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    reads_letters: bool = False
    reads_settings: bool = False
    """Whether it may see how topics are set up: `topics list`, `doctor`."""
    writes_letters: bool = False
    rules_topics: bool = False
    """Whether it makes topics and sets their retention, writes to all of them, and moves offsets of our groups."""
    joins_group: bool = False
    forgets_offsets: bool = False
    """Whether it lets its group begin again: current state that was lost is filled from the tape's beginning."""
    keys_written: tuple[str, ...] = ()
    keys_read: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    database: tuple[str, ...] = ()
    """The roles of the history that its login is a member of; empty for no login."""

    @property
    def group(self) -> str:
        """What the names of its consumer groups begin with."""
        return f"tradetape-{self.name}"

    @property
    def uses_redis(self) -> bool:
        """Whether it is a user of Redis."""
        return bool(self.commands)

    def may_write(self, record: str) -> bool:
        """Whether it may put this record onto its topic."""
        return self.rules_topics or record in self.writes or _ALL in self.writes

    def may_read(self, record: str) -> bool:
        """Whether it may read this record's topic."""
        return self.rules_topics or record in self.reads or _ALL in self.reads


ROLES = (
    Role(
        name="bot", does="trading code: emits signals and market data, reads current state, shares locks and limits",
        writes=("Candle", "IndicatorUpdate", "MarketCondition", "TradeSignal"),
        keys_read=_STATE_KINDS, keys_written=_SHARED_KINDS,
        commands=(
            *_LOOK, *_READ, *_RUN, "set", "del", "incrby", "pexpire", "lindex", "llen", "ltrim", "rpush",
        ),
    ),
    Role(
        name="state", does="keeps current state in Redis", joins_group=True, forgets_offsets=True, writes_letters=True,
        reads=(_ALL,), keys_written=_STATE_KINDS,
        commands=(*_LOOK, *_READ, *_RUN, "set", "del", "hset", "hdel", "sadd", "pexpireat"),
    ),
    Role(
        name="approval", does="turns signals into trades, or refuses them", joins_group=True, writes_letters=True,
        reads=("TradeSignal", "SignalDecision", "Trade", "TradeDispatch", "TradeClosed"),
        writes=("SignalDecision", "Trade"), keys_written=("approval",),
        commands=(*_LOOK, *_READ, *_RUN, "set", "hset", "hsetnx", "hdel", "hincrby", "pexpire"),
    ),
    Role(
        name="history", does="writes every event to PostgreSQL", joins_group=True, writes_letters=True, reads=(_ALL,),
        database=("tradetape_sink",),
    ),
    Role(
        name="dispatch", does="hands trades to an executor", joins_group=True, writes_letters=True,
        reads=("Trade", "TradeDispatch", "Fill", "Candle"), writes=("TradeDispatch", "Fill"),
        database=("tradetape_dispatch",),
    ),
    Role(
        name="positions", does="turns trades and fills into closed trades", joins_group=True, writes_letters=True,
        reads=("Trade", "TradeDispatch", "Fill", "Candle", "TradeClosed"), writes=("TradeClosed",),
    ),
    Role(
        name="staleness", does="raises the alarm when a series falls silent", joins_group=True, writes_letters=True,
        reads=("Candle", "IndicatorUpdate", "MarketCondition"), writes=("MarketCondition",),
    ),
    Role(
        name="reader", does="analysts and dashboards: read the tape, current state and the history, write nothing",
        reads=(_ALL,), reads_letters=True, reads_settings=True, keys_read=(_ALL,), commands=(*_LOOK, *_READ),
        database=("tradetape_reader",),
    ),
    Role(
        name="operator", does="people: topics, dead letters, replays, migrations; may write to every topic",
        rules_topics=True, reads_letters=True, writes_letters=True, keys_written=(_ALL,),
        commands=("+@all", "-@admin", "-@dangerous", "+info", "+keys"),
        database=("tradetape_owner", "tradetape_reader", "tradetape_retention", "tradetape_dispatch"),
    ),
)  # fmt: skip
"""Redis and PostgreSQL know two users more, which no process of ours is: an administrator each, used by `access apply`."""


def role(name: str) -> Role:
    """A role by its name. Raises UsageError."""
    found = {one.name: one for one in ROLES}
    if name not in found:
        raise UsageError(f"no role {name}; there are {', '.join(found)}")
    return found[name]


def topics_written(of: Role, catalogue: Catalogue) -> set[str]:
    """The topics that a role may write to."""
    found = {catalogue.topic_name(one) for one in catalogue if of.may_write(one.record)}
    return found | ({catalogue.dead_letters_topic} if of.writes_letters else set())


def topics_read(of: Role, catalogue: Catalogue) -> set[str]:
    """The topics that a role may read."""
    found = {catalogue.topic_name(one) for one in catalogue if of.may_read(one.record)}
    return found | ({catalogue.dead_letters_topic} if of.reads_letters else set())
