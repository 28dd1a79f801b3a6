"""Money as decimal(38,18): exact or refused (I12).

On the tape a decimal is Avro `bytes`: the unscaled integer, big-endian two's complement, scale 18. The
functions here are the only way in and out of that form; none rounds, none reads the decimal context.
"""

from __future__ import annotations

from decimal import Context, Decimal

PRECISION = 38
SCALE = 18
INTEGER_DIGITS = PRECISION - SCALE
_UNIT = 10**SCALE
_LIMIT = 10**PRECISION
_EXACT = Context(prec=2 * PRECISION)
"""So wide that nothing in it is rounded."""
_MISSING: list[int] = [10 ** (SCALE - places) for places in range(SCALE + 1)]
"""What the digits of a text lack to scale 18, by its places after the point."""


def from_user(value: object) -> Decimal:
    """Take a price or quantity as trading code has it: Decimal, int, str, or a float by its shortest text.

    Raises ValueError with the broken rule as its text.
    """
    if type(value) is not str:
        value = _number_or_text(value)
    try:
        return Decimal(value)
    except ArithmeticError:
        raise ValueError('must be a decimal number such as "64123.10"') from None


def _number_or_text(value: object) -> Decimal | int | str:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    if isinstance(value, float):
        return float.__repr__(value)
    if not isinstance(value, (str, Decimal, int)):
        raise ValueError(f"must be a Decimal, int, str or float, not {type(value).__name__}")
    return value


def encode(value: Decimal) -> bytes:
    """Encode as Avro bytes of scale 18. Raises ValueError where it does not fit exactly."""
    whole, _, fraction = str(value).partition(".")
    try:
        unscaled = int(whole + fraction) * _MISSING[len(fraction)]
    except (ValueError, IndexError):
        return _encode_digits(value)
    if 0 <= unscaled < _LIMIT:
        return unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big")
    return _to_bytes(unscaled) if -_LIMIT < unscaled < 0 else _encode_digits(value)


def _encode_digits(value: Decimal) -> bytes:
    """The slow way, for exponents, and for what does not fit, which it can name."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("must be finite")
    shift = exponent + SCALE
    # Decided by the digits' places before any power of ten is built: 10**exponent of "1E-999999999" never ends.
    if shift > PRECISION and any(digits):
        raise ValueError(f"has more than {INTEGER_DIGITS} digits before the point")
    if -shift >= len(digits) and any(digits):
        raise ValueError(f"has more than {SCALE} digits after the point; round it to what you mean")
    unscaled = int("".join(map(str, digits)))
    if shift >= 0:
        unscaled *= 10 ** min(shift, PRECISION)
    else:
        unscaled, rest = divmod(unscaled, 10**-shift) if unscaled else (0, 0)
        if rest:
            raise ValueError(f"has more than {SCALE} digits after the point; round it to what you mean")
    if unscaled >= _LIMIT:
        raise ValueError(f"has more than {INTEGER_DIGITS} digits before the point")
    return _to_bytes(-unscaled if sign else unscaled)


def _to_bytes(unscaled: int) -> bytes:
    magnitude = ~unscaled if unscaled < 0 else unscaled
    return unscaled.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


def unscaled(raw: bytes) -> int:
    """The value times 10**18 as an integer."""
    return int.from_bytes(raw, "big", signed=True)


def to_text(raw: bytes) -> str:
    """Canonical text: no exponent, no trailing zeros after the point, "0" for zero."""
    number = int.from_bytes(raw, "big", signed=True)
    whole, fraction = divmod(abs(number), _UNIT)
    text = f"{whole}.{fraction:018d}".rstrip("0").rstrip(".") if fraction else str(whole)
    return f"-{text}" if number < 0 else text


def to_decimal(raw: bytes) -> Decimal:
    """The exact value as a Decimal in canonical form."""
    return from_unscaled(int.from_bytes(raw, "big", signed=True))


def from_unscaled(number: int) -> Decimal:
    """The exact value of so many units of 10**-18, in canonical form."""
    whole, fraction = divmod(number, _UNIT)
    return Decimal(number).scaleb(-SCALE, _EXACT).normalize(_EXACT) if fraction else Decimal(whole)
