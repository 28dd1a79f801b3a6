"""The gate before a release: it passes what ships, and each of its checks is seen to fail on a broken copy."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest

import tradetape.schemas
from tradetape.console import exit_codes
from tradetape.console.commands import schemas as command
from tradetape.schemas import avro_schema, check, compatibility, freezing, lint, released, stubs
from tradetape.schemas.errors import CatalogueError
from tradetape.schemas.event_classes import RECORDS

PACKAGE = Path(tradetape.schemas.__path__[0])
Schema = dict[str, Any]
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the schemas and of what was released, to be broken."""
    for name in ("avro", "released"):
        shutil.copytree(PACKAGE / name, tmp_path / name)
    shutil.copy(PACKAGE / "events.pyi", tmp_path)
    return tmp_path


def problems(folder: Path) -> list[str]:
    return check.problems(check.read(folder), stub=stubs.render())


def edit(folder: Path, record: str, change: Callable[[Schema], object]) -> None:
    path = folder / "avro" / f"{record}.avsc"
    schema = json.loads(path.read_text())
    change(schema)
    path.write_text(json.dumps(schema))


def field(schema: Schema, name: str) -> Schema:
    return next(one for one in schema["fields"] if one["name"] == name)


def set_type(name: str, new: Any) -> Callable[[Schema], object]:
    return lambda schema: field(schema, name).update(type=new)


def add(**new: Any) -> Callable[[Schema], object]:
    return lambda schema: schema["fields"].append({"doc": "Added later.", **new})


def release(folder: Path, record: str) -> released.Version:
    return freezing.freeze(folder / "released", record=record, head=(folder / "avro" / f"{record}.avsc").read_bytes())


def test_what_ships_passes() -> None:
    assert problems(PACKAGE) == []


def test_all_nine_records_are_released() -> None:
    assert set(released.lock()) == set(RECORDS)
    assert len(RECORDS) == 9


# -- files that were released ------------------------------------------------------------------------------------


def test_a_released_file_that_was_edited_is_noticed_even_in_its_words(copy: Path) -> None:
    path = copy / "released" / "Fill" / "v1.avsc"
    path.write_text(path.read_text().replace("An execution", "Some execution"))
    assert problems(copy) == ["Fill v1: the released file has been changed; released files stay as they are"]


def test_a_released_file_that_was_removed_is_noticed(copy: Path) -> None:
    (copy / "released" / "Fill" / "v1.avsc").unlink()
    assert "Fill v1: the released file is missing" in problems(copy)


def test_a_folder_of_released_files_that_was_removed_is_noticed(copy: Path) -> None:
    shutil.rmtree(copy / "released" / "Fill")
    assert "Fill v1: the released file is missing" in problems(copy)


def test_a_file_laid_among_the_released_ones_by_hand_is_noticed(copy: Path) -> None:
    shutil.copy(copy / "released" / "Fill" / "v1.avsc", copy / "released" / "Fill" / "v2.avsc")
    found = problems(copy)
    assert "Fill v2: the file lies among the released ones, but the lock does not know it" in found


def test_a_lock_that_was_edited_is_noticed(copy: Path) -> None:
    path = copy / "released" / "lock.json"
    lock = json.loads(path.read_text())
    lock["Candle"][0]["id"] += 1
    path.write_text(json.dumps(lock))
    assert problems(copy) == ["Candle v1: the released file has been changed; released files stay as they are"]


def test_a_record_that_was_released_cannot_vanish(copy: Path) -> None:
    (copy / "avro" / "Candle.avsc").unlink()
    assert problems(copy) == ["Candle: was released but has no head; events of it are on the tape"]


# -- heads and stub ----------------------------------------------------------------------------------------------


def test_a_changed_head_needs_a_new_version(copy: Path) -> None:
    edit(copy, "Candle", add(name="vwap", type=["null", DECIMAL], default=None))
    assert problems(copy) == [
        "Candle: the head differs from the last released version; `tradetape schemas freeze` releases it"
    ]


def test_reordered_fields_need_a_new_version(copy: Path) -> None:
    edit(copy, "Candle", lambda schema: schema["fields"].append(schema["fields"].pop(-3)))
    assert len(problems(copy)) == 1
    assert "differs from the last released version" in problems(copy)[0]


def test_better_words_need_no_new_version(copy: Path) -> None:
    edit(copy, "Candle", lambda schema: schema.update(doc="One bar."))
    assert problems(copy) == []


def test_a_stub_that_differs_from_the_schemas_is_noticed(copy: Path) -> None:
    path = copy / "events.pyi"
    path.write_text(path.read_text().replace("is_final: bool", "is_final: int", 1))
    assert problems(copy) == ["events.pyi: differs from the schemas; `tradetape schemas stubs` writes it"]


# -- golden events -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", RECORDS)
def test_the_official_avro_package_reads_what_the_golden_sample_says(record: str) -> None:
    folder = PACKAGE / "released"
    writer = avro.schema.parse((folder / record / "v1.avsc").read_text())
    payload = (folder / "golden" / f"{record}.v1.bin").read_bytes()
    assert payload[:1] == b"\0"
    assert int.from_bytes(payload[1:5], "big") == released.lock()[record][0]["id"]
    source = BytesIO(payload[5:])
    found: Any = avro.io.DatumReader(writer).read(avro.io.BinaryDecoder(source))
    assert source.read() == b""
    sample = json.loads((folder / "golden" / f"{record}.v1.json").read_text())
    assert sample.keys() == found.keys()
    for name, value in sample.items():
        assert_says(found[name], value)


def assert_says(found: Any, said: Any) -> None:
    if isinstance(found, Decimal):
        assert found == Decimal(said)
    elif isinstance(found, datetime):
        assert found == datetime.fromisoformat(said)
    elif isinstance(found, dict):
        assert found.keys() == said.keys()
        for name, value in found.items():
            assert_says(value, said[name])
    elif isinstance(found, list):
        for one, expected in zip(found, said, strict=True):
            assert_says(one, expected)
    else:
        assert found == said


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda payload: payload[:-1], "cannot be decoded"),
        (lambda payload: payload + b"\0", "has 1 bytes after its end"),
        (lambda payload: b"\0\0\0\0\1" + payload[5:], "does not begin with the frame of its version"),
        (lambda payload: payload.replace(b"BTCUSDT", b"BTCUSDC"), "reads differently than its sample says: symbol"),
    ],
)
def test_a_golden_event_that_no_longer_reads_as_it_did_is_noticed(
    copy: Path, change: Callable[[bytes], bytes], rule: str
) -> None:
    path = copy / "released" / "golden" / "Candle.v1.bin"
    path.write_bytes(change(path.read_bytes()))
    [line] = problems(copy)
    assert line.startswith(f"Candle v1: the golden event {rule}")


def test_a_golden_event_that_is_missing_is_noticed(copy: Path) -> None:
    (copy / "released" / "golden" / "Trade.v1.bin").unlink()
    assert problems(copy) == ["Trade v1: the golden event is missing"]


def test_a_golden_event_that_the_head_cannot_read_is_noticed(copy: Path) -> None:
    edit(copy, "Candle", add(name="vwap", type=DECIMAL))
    assert any(line.startswith("Candle v1: the golden event cannot be decoded") for line in problems(copy))


# -- compatibility by the official package -----------------------------------------------------------------------


def test_a_new_field_without_default_breaks_readers_of_old_events(copy: Path) -> None:
    edit(copy, "Candle", add(name="vwap", type=DECIMAL))
    assert any("Candle head cannot read what Candle v1 wrote" in line and "vwap" in line for line in problems(copy))


def test_a_dropped_field_without_default_breaks_old_readers_of_new_events(copy: Path) -> None:
    edit(copy, "Candle", lambda schema: schema["fields"].remove(field(schema, "volume")))
    assert any("Candle v1 cannot read what Candle head wrote" in line and "volume" in line for line in problems(copy))


def test_versions_that_are_not_neighbours_are_compared_too() -> None:
    def version(*fields: Schema) -> Schema:
        return {"type": "record", "name": "Thing", "fields": list(fields)}

    text = {"name": "note", "type": "string", "default": ""}
    number = {"name": "note", "type": "long", "default": 0}
    versions = [("v1", version(text)), ("v2", version()), ("v3", version(number))]
    found = list(compatibility.incompatibilities(versions))
    assert {line.partition(":")[0] for line in found} == {
        "v1 cannot read what v3 wrote",
        "v3 cannot read what v1 wrote",
    }


def test_the_check_says_what_to_install_where_the_avro_package_is_missing(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "avro.compatibility", None)
    with pytest.raises(compatibility.CheckerMissing, match="pip install avro"):
        problems(copy)


# -- our own rules -----------------------------------------------------------------------------------------------


def enum(**changes: Any) -> Schema:
    return {
        "type": "enum",
        "name": "Mood",
        "doc": "A mood.",
        "symbols": ["UNKNOWN", "GOOD"],
        "default": "UNKNOWN",
    } | changes


def nested(depth: int) -> Any:
    return "string" if depth == 0 else {"type": "array", "items": nested(depth - 1)}


def record(name: str, *fields: Schema, **changes: Any) -> Schema:
    return {"type": "record", "name": name, "doc": "A thing.", "fields": list(fields)} | changes


BROKEN: dict[str, tuple[Callable[[Schema], object], str]] = {
    "field without doc": (lambda s: field(s, "high").pop("doc"), "Candle.high: must have a doc"),
    "record without doc": (lambda s: s.pop("doc"), "Candle: must have a doc"),
    "field of a nested record without doc": (
        add(name="extra", type=record("Extra", {"name": "one", "type": "string"})),
        "Candle.Extra.one: must have a doc",
    ),
    "enum without default": (add(name="mood", type={k: v for k, v in enum().items() if k != "default"}), "Mood: an enum's first symbol and default"),
    "enum with another default": (add(name="mood", type=enum(default="GOOD")), "Mood: an enum's first symbol"),
    "UNKNOWN not first": (
        add(name="mood", type=enum(symbols=["GOOD", "UNKNOWN"])),
        "Mood: an enum's first symbol and default must be UNKNOWN",
    ),
    "alias of a field": (add(name="vwap", type="string", aliases=["high"]), "Candle.vwap: must have no aliases"),
    "alias of a record": (lambda s: s.update(aliases=["Bar"]), "Candle: must have no aliases"),
    "nullable without default": (add(name="note", type=["null", "string"]), "Candle.note: is nullable"),
    "nullable with another default": (add(name="note", type=["string", "null"], default=""), "Candle.note: a union"),
    "union of three": (add(name="note", type=["null", "string", "long"], default=None), "Candle.note: a union must be"),
    "recursion": (
        add(name="tree", type=record("Tree", {"name": "left", "type": ["null", "Tree"], "default": None, "doc": "x"})),
        "Candle.tree.left: Tree contains itself",
    ),
    "recursion by full name": (
        add(name="loop", type={"type": "array", "items": "tradetape.events.Candle"}, default=[]),
        "Candle.loop.*: Candle contains itself",
    ),
    "array of nothing": (add(name="holes", type={"type": "array", "items": "null"}), "Candle.holes: its items take no"),
    "map of nothing": (add(name="holes", type={"type": "map", "values": "null"}), "Candle.holes: its items take no"),
    "array of empty records": (
        add(name="holes", type={"type": "array", "items": record("Hole", {"name": "in", "type": "null", "doc": "x"})}),
        "Candle.holes: its items take no bytes",
    ),
    "17 deep": (add(name="deep", type=nested(16)), "Candle: is nested 17 deep; at most 16"),
    "513 fields": (
        lambda s: s["fields"].extend({"name": f"f{n}", "type": "long", "doc": "x"} for n in range(513 - 25)),
        "Candle: has 513 fields; at most 512",
    ),
    "another scale": (add(name="vwap", type=DECIMAL | {"scale": 8}), "Candle.vwap: a logical type must be decimal(38,18)"),
    "milliseconds": (
        add(name="at", type={"type": "long", "logicalType": "timestamp-millis"}),
        "Candle.at: a logical type must be",
    ),
    "a type that the tape does not use": (add(name="ratio", type="float"), "Candle.ratio: float is no type of the tape"),
    "a type that does not exist": (add(name="ratio", type="number"), "Candle: is no Avro schema"),
    "another namespace": (lambda s: s.update(namespace="elsewhere"), "Candle: must be named Candle in the namespace"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_schema_that_breaks_a_rule_is_named_with_the_rule(broken: str) -> None:
    change, expected = BROKEN[broken]
    schema = avro_schema.load("Candle")
    assert list(lint.problems("Candle", schema)) == []
    change(schema)
    found = list(lint.problems("Candle", schema))
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    "change",
    [
        add(name="deep", type=nested(15)),
        lambda s: s["fields"].extend({"name": f"f{n}", "type": "long", "doc": "x"} for n in range(512 - 25)),
        add(name="mood", type=enum()),
    ],
    ids=["16 deep", "512 fields", "a new enum"],
)
def test_a_schema_within_the_rules_passes(change: Callable[[Schema], object]) -> None:
    schema = avro_schema.load("Candle")
    change(schema)
    assert list(lint.problems("Candle", schema)) == []


def test_a_type_that_is_used_many_times_is_measured_once() -> None:
    inner: Any = record("T0", {"name": "leaf", "type": "string", "doc": "x"})
    for level in range(1, 15):
        twins = [{"name": f"again{n}", "type": f"T{level - 1}", "doc": "x"} for n in range(20)]
        inner = record(f"T{level}", {"name": "first", "type": inner, "doc": "x"}, *twins)
    schema = avro_schema.load("Candle")
    add(name="inner", type=inner)(schema)
    assert list(lint.problems("Candle", schema)) == []


CHANGED: dict[str, tuple[Callable[[Schema], object], str]] = {
    "another scale": (set_type("close", DECIMAL | {"scale": 8}), "Candle.close: type, scale, unit"),
    "another precision": (set_type("close", DECIMAL | {"precision": 28}), "Candle.close: type, scale, unit"),
    "no logical type": (set_type("close", "bytes"), "Candle.close: type, scale, unit"),
    "milliseconds": (
        set_type("open_time", {"type": "long", "logicalType": "timestamp-millis"}),
        "Candle.open_time: type, scale, unit",
    ),
    "text as bytes": (set_type("timeframe", "bytes"), "Candle.timeframe: type, scale, unit"),
    "another default": (lambda s: field(s, "tags").update(default={"a": "b"}), "Candle.tags: type, scale, unit"),
    "another unit": (lambda s: field(s, "volume").update(unit="quote"), "Candle.volume: type, scale, unit"),
    "a map of something else": (set_type("tags", {"type": "map", "values": "double"}), "Candle.tags: type, scale, unit"),
    "a symbol fewer": (
        lambda s: field(s, "run_mode")["type"]["symbols"].remove("PAPER"),
        "RunMode: PAPER must stay",
    ),
    "another enum default": (lambda s: field(s, "run_mode")["type"].update(default="LIVE"), "RunMode: an enum's default"),
    "a new field without default": (add(name="vwap", type=DECIMAL), "Candle.vwap: was added later"),
    "another record name": (lambda s: s.update(name="Bar"), "the record's name and namespace must stay"),
    "another namespace": (lambda s: s.update(namespace="elsewhere"), "the record's name and namespace must stay"),
}  # fmt: skip


@pytest.mark.parametrize("changed", CHANGED)
def test_what_a_later_version_may_not_change_is_named(changed: str) -> None:
    change, expected = CHANGED[changed]
    earlier, later = avro_schema.load("Candle"), avro_schema.load("Candle")
    assert list(lint.changes(earlier, later)) == []
    change(later)
    found = list(lint.changes(earlier, later))
    assert any(line.startswith(expected) for line in found), found


def test_a_new_symbol_and_a_new_field_with_default_are_allowed(copy: Path) -> None:
    def change(schema: Schema) -> None:
        field(schema, "liquidity")["type"]["symbols"].append("AUCTION")
        add(name="note", type=["null", "string"], default=None)(schema)

    edit(copy, "Fill", change)
    assert check.before_release(check.read(copy)) == []


def test_a_rename_is_refused_though_both_names_have_defaults(copy: Path) -> None:
    edit(copy, "Candle", lambda schema: field(schema, "source").update(name="feed"))
    expected = "Candle head against Candle v1: Candle.feed: looks like source under a new name"
    assert any(line.startswith(expected) for line in problems(copy))


def test_a_field_that_was_dropped_comes_back_only_as_it_was(copy: Path) -> None:
    edit(copy, "Candle", lambda schema: schema["fields"].remove(field(schema, "quote_volume")))
    sample = json.loads((copy / "released" / "golden" / "Candle.v1.json").read_text())
    del sample["quote_volume"]
    (copy / "released" / "golden" / "Candle.v2.json").write_text(json.dumps(sample))
    release(copy, "Candle")
    assert problems(copy) == []
    edit(copy, "Candle", add(name="quote_volume", type=["null", "bytes"], default=None))
    expected = "Candle head against Candle v1: Candle.quote_volume: type, scale, unit and default"
    assert any(line.startswith(expected) for line in problems(copy))


def test_a_field_added_to_a_nested_record_needs_a_default() -> None:
    earlier, later = avro_schema.load("TradeSignal"), avro_schema.load("TradeSignal")
    leg = field(later, "legs")["type"]["items"]
    leg["fields"].append({"name": "note", "type": "string", "doc": "x"})
    assert list(lint.changes(earlier, later)) == ["Leg.note: was added later, so it must have a default"]


def test_records_must_agree_on_the_types_they_share(copy: Path) -> None:
    edit(copy, "Trade", lambda schema: field(schema, "action")["type"]["symbols"].append("HEDGE"))
    found = problems(copy)
    assert any("Action must be the same here and in" in line for line in found), found


def test_records_must_agree_on_the_common_fields(copy: Path) -> None:
    edit(copy, "Trade", lambda schema: field(schema, "venue").update(default="binance"))
    assert "Trade: its first 12 fields must be those that all events have in common" in problems(copy)


# -- freezing ----------------------------------------------------------------------------------------------------


def test_a_frozen_head_passes_and_the_first_versions_event_reads_on(copy: Path) -> None:
    edit(copy, "Candle", add(name="vwap", type=["null", DECIMAL], default=None))
    head = (copy / "avro" / "Candle.avsc").read_bytes()
    version = release(copy, "Candle")
    assert (version.number, version.schema_id) == (2, avro_schema.content_id(json.loads(head)))
    assert problems(copy) == []
    assert (copy / "released" / "Candle" / "v2.avsc").read_bytes() == head
    assert [entry["version"] for entry in json.loads((copy / "released" / "lock.json").read_text())["Candle"]] == [1, 2]
    (copy / "released" / "golden" / "Candle.v1.bin").write_bytes(b"")
    assert len(problems(copy)) == 1


def test_the_author_of_a_version_says_what_its_golden_event_holds(copy: Path) -> None:
    edit(copy, "Candle", add(name="vwap", type=["null", DECIMAL], default=None))
    golden = copy / "released" / "golden"
    sample = json.loads((golden / "Candle.v1.json").read_text()) | {"vwap": "95503.000000000000000001"}
    (golden / "Candle.v2.json").write_text(json.dumps(sample))
    release(copy, "Candle")
    # Scale 18, as computed by hand: the unscaled integer in the payload's last bytes, behind branch and length.
    unscaled = (95503 * 10**18 + 1).to_bytes(10, "big")
    assert (golden / "Candle.v2.bin").read_bytes().endswith(b"\x02" + b"\x14" + unscaled)
    assert problems(copy) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [({"colour": "red"}, "unknown fields: colour"), ({"producer_seq": "many"}, "does not fit its schema")],
)
def test_a_sample_that_does_not_fit_is_refused_before_anything_is_written(
    copy: Path, change: dict[str, str], rule: str
) -> None:
    edit(copy, "Candle", add(name="vwap", type=["null", DECIMAL], default=None))
    golden = copy / "released" / "golden"
    (golden / "Candle.v2.json").write_text(json.dumps(json.loads((golden / "Candle.v1.json").read_text()) | change))
    with pytest.raises(CatalogueError, match=rule):
        release(copy, "Candle")
    assert not (copy / "released" / "Candle" / "v2.avsc").exists()


def test_a_record_without_a_sample_is_not_released(copy: Path) -> None:
    with pytest.raises(CatalogueError, match="Quote v1 needs a sample event"):
        freezing.freeze(copy / "released", record="Quote", head=b'{"name": "Quote"}')


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def schemas_of(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `tradetape schemas …` on the copy."""
    monkeypatch.setattr(command, "_folder", lambda: copy)
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())

    def run(*words: str) -> int:
        args = parser.parse_args(["schemas", *words])
        return int(args.run(args))

    return run


def test_check_says_in_one_line_what_it_checked(
    schemas_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert schemas_of("check") == exit_codes.OK
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("9 records in 9 released versions")


def test_check_exits_4_with_a_line_for_each_problem(
    copy: Path, schemas_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for record_name in ("Candle", "Trade"):
        (copy / "released" / "golden" / f"{record_name}.v1.bin").unlink()
    assert schemas_of("check") == 4
    assert capsys.readouterr().out.splitlines() == [
        "Candle v1: the golden event is missing",
        "Trade v1: the golden event is missing",
    ]


def test_freeze_releases_what_changed_and_nothing_else(
    copy: Path, schemas_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copy, "Candle", add(name="vwap", type=["null", DECIMAL], default=None))
    assert schemas_of("freeze") == exit_codes.OK
    assert capsys.readouterr().out.startswith("Candle v2 released under id ")
    assert schemas_of("freeze") == exit_codes.OK
    assert capsys.readouterr().out.startswith("Nothing to release")
    assert len(list((copy / "released").glob("*/v*.avsc"))) == 10


def test_freeze_releases_nothing_that_breaks_a_rule(copy: Path, schemas_of: Callable[..., int]) -> None:
    edit(copy, "Candle", add(name="vwap", type=DECIMAL))
    assert schemas_of("freeze") == 4
    assert not (copy / "released" / "Candle" / "v2.avsc").exists()


def test_stubs_mends_a_stale_stub(copy: Path, schemas_of: Callable[..., int]) -> None:
    (copy / "events.pyi").write_text("")
    assert schemas_of("check") == 4
    assert schemas_of("stubs") == exit_codes.OK
    assert schemas_of("check") == exit_codes.OK


def test_list_names_every_record_with_topic_version_id_and_fields(
    schemas_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert schemas_of("list", "--json") == exit_codes.OK
    rows = {row["record"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(RECORDS)
    candle = rows["Candle"]
    assert candle["topic"] == "tradetape.candles"
    assert candle["version"] == 1
    assert candle["id"] == json.loads((PACKAGE / "released" / "lock.json").read_text())["Candle"][0]["id"]
    assert candle["fields"][:2] == ["event_id", "event_time"]
    assert len(candle["fields"]) == 25
    assert schemas_of("list") == exit_codes.OK
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "Candle",
        "tradetape.candles",
        "v1",
        str(candle["id"]),
        "25",
    ]
