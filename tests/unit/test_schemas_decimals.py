"""Money goes onto the tape exactly or not at all, whatever it was given as."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal, localcontext
from io import BytesIO

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tradetape.schemas import decimals

SCHEMA = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
ON_TAPE = st.integers(-(10**38) + 1, 10**38 - 1)


def through(value: object) -> Decimal:
    """What a reader gets of a value as trading code gave it."""
    return decimals.to_decimal(decimals.encode(decimals.from_user(value)))


def exact(unscaled: int) -> Decimal:
    sign, digits = int(unscaled < 0), tuple(map(int, str(abs(unscaled))))
    return Decimal((sign, digits, -18))


@given(ON_TAPE)
@example(10**38 - 1)
@example(1 - 10**38)
def test_every_number_of_20_and_18_digits_comes_back_exactly(unscaled: int) -> None:
    raw = decimals.encode(exact(unscaled))
    assert decimals.to_decimal(raw) == exact(unscaled)
    assert decimals.unscaled(raw) == unscaled


@given(ON_TAPE)
@example(-128)  # fastavro writes this one with a byte more than it takes
def test_fastavro_reads_the_number_from_the_bytes(unscaled: int) -> None:
    raw = decimals.encode(exact(unscaled))
    assert fastavro.schemaless_reader(BytesIO(bytes([2 * len(raw)]) + raw), SCHEMA, None) == exact(unscaled)


@given(ON_TAPE)
def test_text_has_no_exponent_and_no_empty_digits(unscaled: int) -> None:
    text = decimals.to_text(decimals.encode(exact(unscaled)))
    assert Decimal(text) == exact(unscaled)
    assert "E" not in text
    assert text == "0" or not ("." in text and text.endswith("0"))
    assert not text.endswith(".")


@pytest.mark.parametrize(
    ("unscaled", "raw"),
    [(0, "00"), (127, "7f"), (128, "0080"), (-128, "80"), (-129, "ff7f"), (-1, "ff"), (256, "0100")],
)
def test_the_bytes_are_the_shortest_twos_complement(unscaled: int, raw: str) -> None:
    assert decimals.encode(exact(unscaled)).hex() == raw


@pytest.mark.parametrize(
    ("given_as", "meant"),
    [
        ("64123.10", "64123.1"),
        (64123, "64123"),
        (Decimal("0.00000798374"), "0.00000798374"),
        (0.1, "0.1"),
        (1e-8, "0.00000001"),
        (33.35399601000002, "33.35399601000002"),
        (1e15, "1000000000000000"),
        ("1E+19", "10000000000000000000"),
        ("1E-18", "0.000000000000000001"),
        ("1.50000000000000000000000000", "1.5"),
        ("-0", "0"),
        ("0E+400", "0"),
        ("0E-400", "0"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
        ("-99999999999999999999.999999999999999999", "-99999999999999999999.999999999999999999"),
    ],
)
def test_a_number_means_what_its_shortest_text_says(given_as: object, meant: str) -> None:
    assert through(given_as) == Decimal(meant)
    assert decimals.to_text(decimals.encode(decimals.from_user(given_as))) == meant


@given(st.floats(min_value=1e-3, max_value=1e15))
def test_a_float_is_taken_by_its_shortest_text_never_by_its_binary_value(value: float) -> None:
    shortest = Decimal(repr(value))
    if len(repr(value).partition(".")[2]) <= 18:
        assert through(value) == shortest
    else:
        with pytest.raises(ValueError, match="digits after the point"):
            through(value)


class Float64(float):
    """Stands for numpy's: a subclass of float whose own text is not a number."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)!r})"


def test_a_float_of_another_make_is_taken_as_a_float() -> None:
    assert through(Float64(0.1)) == Decimal("0.1")


@pytest.mark.parametrize("noisy", [5.580000000000001e-05, 0.00031099999999999997])
def test_binary_noise_that_does_not_fit_is_refused_not_rounded(noisy: float) -> None:
    with pytest.raises(ValueError, match="more than 18 digits after the point; round it to what you mean"):
        through(noisy)


@pytest.mark.parametrize(
    "large",
    ["1E+20", Decimal("1E+20"), 10**20, -(10**20), 1e20, "100000000000000000000.5", "1E+999999999", "-1E+999999999"],
)
def test_a_number_of_more_than_20_integer_digits_is_refused(large: object) -> None:
    with pytest.raises(ValueError, match="more than 20 digits before the point"):
        through(large)


@pytest.mark.parametrize("small", ["1E-19", "0.0000000000000000001", "12.3456789012345678901", "1E-999999999"])
def test_a_number_of_more_than_18_decimals_is_refused(small: str) -> None:
    with pytest.raises(ValueError, match="more than 18 digits after the point"):
        through(small)


@pytest.mark.parametrize(
    "unreal",
    [
        "NaN",
        "sNaN",
        "Infinity",
        "-Infinity",
        float("nan"),
        float("inf"),
        float("-inf"),
        Decimal("NaN"),
        Decimal("-Inf"),
    ],
)
def test_what_is_not_a_number_is_refused(unreal: object) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        through(unreal)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (True, "not a boolean"),
        (None, "not NoneType"),
        (b"1", "not bytes"),
        ([1], "not list"),
        ("", "must be a decimal number"),
        ("1,5", "must be a decimal number"),
        ("12 USDT", "must be a decimal number"),
    ],
)
def test_what_is_no_price_is_refused_with_the_rule(wrong: object, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        decimals.from_user(wrong)


def test_the_callers_decimal_context_changes_nothing() -> None:
    value = Decimal("12345678901234567890.123456789012345678")
    with localcontext() as context:
        context.prec, context.rounding = 5, ROUND_UP
        assert decimals.to_text(decimals.encode(value)) == "12345678901234567890.123456789012345678"
        assert decimals.to_decimal(decimals.encode(value)).as_tuple() == value.as_tuple()
