"""Settings: one way in, whole or refused with a sentence that mends it, and no secret in any text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tradetape.producers import Producer, SettingsError
from tradetape.producers.client import FIXED
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import EXAMPLES, UNPREFIXED, Settings, load, variables
from tradetape.schemas import CATALOGUE, RunMode

SECRET = "correct-horse-battery"


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("TRADETAPE_TOPIC_PERFIX", "TRADETAPE_TOPIC_PREFIX"),
        ("TRADETAPE_RUNMODE", "TRADETAPE_RUN_MODE"),
        ("TRADETAPE_HTTP_PROT", "TRADETAPE_HTTP_PORT"),
        ("TRADETAPE_HOEM", "TRADETAPE_HOME"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(mistyped: str, meant: str) -> None:
    text = refusal({mistyped: "x"})
    assert mistyped in text
    assert f"did you mean {meant}?" in text


def test_an_unknown_name_near_to_none_is_refused_with_all_known_ones() -> None:
    text = refusal({"TRADETAPE_QQQQQQQQQQQQQQ": "x"})
    assert set(re.findall(r"TRADETAPE_[A-Z_]+", text)) == {
        "TRADETAPE_QQQQQQQQQQQQQQ",
        *(one.name for one in variables() if one.name.startswith("TRADETAPE_")),
    }


def test_variables_of_other_programs_are_no_concern_of_ours() -> None:
    assert load({"HOME": "/root", "TRADE_TAPE_X": "1", "tradetape_home": "x"}) == Settings()


def test_every_documented_variable_is_read() -> None:
    # Most variables take anything; these take a number, a switch or a word of their own.
    own = {"TRADETAPE_DURABILITY": "power", "TRADETAPE_DEVELOPMENT": "True"}
    values = {one.name: own.get(one.name, "7") for one in variables()}
    settings = load(values)
    for name in values:
        field = name.lower() if name in UNPREFIXED else name.removeprefix("TRADETAPE_").lower()
        assert str(getattr(settings, field)) == values[name], name
    assert all(one.meaning for one in variables())


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert load({"TRADETAPE_TOPIC_PREFIX": "", "KAFKA_BOOTSTRAP_SERVERS": ""}) == Settings()


@pytest.mark.parametrize("variable", sorted(EXAMPLES))
def test_a_missing_variable_is_named_with_where_it_was_looked_for_and_an_example(variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}).required(variable)
    text = str(caught.value)
    assert variable in text
    assert "environment" in text
    assert f"{variable}={EXAMPLES[variable]}" in text


def test_a_producer_without_brokers_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match=r"KAFKA_BOOTSTRAP_SERVERS is not set .*127\.0\.0\.1:19092"):
        Producer.from_env(source="bot", settings=load({}))


def test_a_value_of_the_wrong_type_names_its_variable() -> None:
    assert "TRADETAPE_HTTP_PORT" in refusal({"TRADETAPE_HTTP_PORT": "eighty"})


def test_a_run_mode_that_does_not_exist_is_refused_with_those_that_do() -> None:
    assert load({}).mode() is RunMode.LIVE
    assert load({"TRADETAPE_RUN_MODE": "PAPER"}).mode() is RunMode.PAPER
    for wrong in ("paper money", "UNKNOWN", "REPLAY"):
        with pytest.raises(SettingsError, match="LIVE, PAPER, BACKTEST"):
            load({"TRADETAPE_RUN_MODE": wrong}).mode()


def test_a_topic_prefix_moves_every_topic() -> None:
    moved = load({"TRADETAPE_TOPIC_PREFIX": "desk7."}).catalogue()
    assert [one.name for one in moved.topics()] == [
        one.name.replace("tradetape.", "desk7.", 1) for one in CATALOGUE.topics()
    ]


def test_kafka_options_pass_through_under_librdkafkas_names() -> None:
    settings = load({"TRADETAPE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "TRADETAPE_KAFKA_LINGER_MS": "20"})
    assert settings.kafka_options == {"security.protocol": "SASL_SSL", "linger.ms": "20"}


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n", encoding="utf-8")
    settings = load({"TRADETAPE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")})
    assert settings.kafka_options == {"sasl.password": SECRET}


def test_a_secret_file_that_is_missing_is_named_with_its_variable(tmp_path: Path) -> None:
    text = refusal({"TRADETAPE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "nowhere")})
    assert "TRADETAPE_KAFKA_SASL_PASSWORD_FILE" in text
    assert str(tmp_path / "nowhere") in text


def test_a_secret_file_that_is_no_text_is_refused_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\xff\xfe" + SECRET.encode())
    text = refusal({"TRADETAPE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")})
    assert "TRADETAPE_KAFKA_SASL_PASSWORD_FILE" in text
    assert SECRET not in text


def test_the_same_option_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET, encoding="utf-8")
    text = refusal(
        {
            "TRADETAPE_KAFKA_SASL_PASSWORD": "other",
            "TRADETAPE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        }
    )
    assert "TRADETAPE_KAFKA_SASL_PASSWORD" in text
    assert SECRET not in text


def test_no_secret_is_in_the_text_of_settings() -> None:
    settings = load(
        {
            "TRADETAPE_KAFKA_SASL_PASSWORD": SECRET,
            "DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1/x",
            "REDIS_URL": f"redis://:{SECRET}@127.0.0.1/0",
            "SCHEMA_REGISTRY_URL": f"http://me:{SECRET}@127.0.0.1",
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        }
    )
    for shown in (repr(settings), str(settings), repr(KafkaSettings.of(settings)), str(KafkaSettings.of(settings))):
        assert SECRET not in shown


@pytest.mark.parametrize(
    "environ",
    [
        {"TRADETAPE_KAFKA_ACKS": "1"},
        {"TRADETAPE_KAFKA_LINGER_MS": "soon"},
        {"TRADETAPE_KAFKA_NO_SUCH_OPTION": "1"},
        {"TRADETAPE_HTTP_PORT": "eighty"},
        {"TRADETAPE_TOPIC_PERFIX": "x."},
        {"TRADETAPE_KAFKA_SASL_MECHANISM": "NONSENSE", "TRADETAPE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
    ],
)
def test_no_secret_is_in_an_error_about_settings(environ: dict[str, str]) -> None:
    secrets = {
        "TRADETAPE_KAFKA_SASL_PASSWORD": SECRET,
        "TRADETAPE_KAFKA_SSL_KEY_PASSWORD": SECRET,
        "DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1/x",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    }
    with pytest.raises(SettingsError) as caught:
        Producer.from_env(source="bot", settings=load({**secrets, **environ}))
    seen: BaseException | None = caught.value
    while seen is not None:
        assert SECRET not in str(seen)
        seen = seen.__cause__


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("TRADETAPE_KAFKA_ACKS", "1"),
        ("TRADETAPE_KAFKA_REQUEST_REQUIRED_ACKS", "0"),
        ("TRADETAPE_KAFKA_ENABLE_IDEMPOTENCE", "false"),
        ("TRADETAPE_KAFKA_PARTITIONER", "consistent_random"),
        ("TRADETAPE_KAFKA_MESSAGE_MAX_BYTES", "1000"),
        ("TRADETAPE_KAFKA_RETRIES", "0"),
        ("TRADETAPE_KAFKA_MAX_IN_FLIGHT", "50"),
        ("TRADETAPE_KAFKA_QUEUE_BUFFERING_MAX_MESSAGES", "0"),
        ("TRADETAPE_KAFKA_TRANSACTIONAL_ID", "mine"),
        ("TRADETAPE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:10"),
        ("TRADETAPE_KAFKA_DELIVERY_TIMEOUT_MS", "1000"),
        ("TRADETAPE_KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION", "false"),
        ("TRADETAPE_KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM", "none"),
    ],
)
def test_an_option_that_would_break_a_guarantee_is_refused(option: str, value: str) -> None:
    settings = load({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9", option: value})
    with pytest.raises(SettingsError):
        Producer.from_env(source="bot", settings=settings)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"acks": "1", "enable.idempotence": "false"}, True),
        ({"max.in.flight": "5"}, True),
        ({"enable.ssl.certificate.verification": "false"}, True),
        ({"ssl.endpoint.identification.algorithm": "none"}, True),
        ({"partitioner": "consistent_random"}, False),
        ({"message.timeout.ms": "1000"}, False),
        ({"transactional.id": "mine"}, False),
    ],
)
def test_only_development_mode_weakens_a_guarantee_and_not_every_one(
    options: dict[str, str], allowed: bool, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="would break a guarantee"):
        Producer(bootstrap_servers="127.0.0.1:9", source="bot", kafka_options=options, outbox_dir=tmp_path)

    def develop() -> None:
        Producer(
            bootstrap_servers="127.0.0.1:9", source="bot", kafka_options=options, outbox_dir=tmp_path,
            is_development=True,
        ).close(0)  # fmt: skip

    if allowed:
        develop()
    else:
        with pytest.raises(SettingsError, match="would break a guarantee"):
            develop()


@pytest.mark.parametrize(
    "option", ["acks", "request.required.acks", "enable.idempotence", "partitioner", "max.in.flight"]
)
def test_a_refused_option_is_named_by_its_variable(option: str) -> None:
    given = KafkaSettings(bootstrap_servers="127.0.0.1:9", options={option: "0"})
    variable = f"TRADETAPE_KAFKA_{option.upper().replace('.', '_')}"
    with pytest.raises(SettingsError, match=f"{variable}=0 would break a guarantee"):
        given.client_config({}, fixed=FIXED)


def test_an_option_may_repeat_what_the_guarantee_asks_for() -> None:
    given = KafkaSettings(bootstrap_servers="127.0.0.1:9", options={"acks": "all", "enable.idempotence": "True"})
    assert given.client_config({}, fixed=FIXED)["acks"] == "all"


def test_the_environment_tunes_what_is_no_guarantee() -> None:
    given = KafkaSettings(bootstrap_servers="127.0.0.1:9", options={"linger.ms": "20"})
    assert given.client_config({"linger.ms": 5, "compression.type": "lz4"}) == {
        "linger.ms": "20",
        "compression.type": "lz4",
        "bootstrap.servers": "127.0.0.1:9",
    }
