"""The arithmetic of one position: fills in, averages, fees and profit out, exact.

All amounts are integers of 10**-18, the unit of the tape's decimals, so sums are exact and no context can round them.
Only what a division does not leave exact is rounded, half to even, at the 18th place: averages, and the value of a fee
that was taken in the traded asset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from tradetape.schemas import decimals, names

UNIT = 10**decimals.SCALE
UNKNOWN_ASSET = "an unknown asset"

Plain = Mapping[str, Any]


def rounded(numerator: int, denominator: int) -> int:
    """The quotient, half to even; the denominator is positive."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient & 1))


class Moved(NamedTuple):
    """What one fill did to the account: base currency moved, its value in quote currency, and the fee."""

    quantity: int
    value: int
    fee_quote: int

    def part(self, of: int) -> Moved:
        """The share of it that moved only so much."""
        share = (rounded(amount * of, self.quantity) for amount in (self.value, self.fee_quote))
        return Moved(of, *share)


def moved(fill: Plain, *, fee: int, fee_is_quote: bool | None) -> Moved:
    """A fee in the base currency changes what is held: bought is so much less, sold so much more.

    It is worth the fill's price, and stands in the value as well, so that value less fee is the money that changed hands.
    """
    quantity, value = decimals.unscaled(fill["quantity"]), decimals.unscaled(fill["amount_quote"])
    if fee_is_quote is not False:
        return Moved(quantity, value, fee if fee_is_quote else 0)
    worth = rounded(fee * decimals.unscaled(fill["price"]), UNIT)
    if fill["side"] == "BUY":
        return Moved(quantity - fee, value - worth, worth)
    return Moved(quantity + fee, value + worth, worth)


class Position:
    """What is held since an ENTER trade. It is closed by the fill after which nothing is held any more."""

    def __init__(self, trade: Plain) -> None:
        self.trade = trade
        self.fill_ids: dict[str, None] = {}
        """In the order in which they were taken."""
        self.is_closed = False
        self.opened_at_us: int | None = None
        self.largest = 0
        self.entry_quantity = self.entry_value = 0
        self.exit_quantity = self.exit_value = 0
        self.fees = 0
        self.excess = 0
        """What the closing fill moved beyond the position: it belongs to none."""
        self.other_fees: Counter[str] = Counter()
        """Fees that no price here turns into quote currency, by asset."""
        self.unknown_fees = 0
        """Number of fills that do not say their fee."""
        self.fill_prices: tuple[int, int] | None = None
        """Lowest and highest."""
        self.legs: set[tuple[str | None, int]] = set()

    @property
    def held(self) -> int:
        """In the direction of the position; negative only while an exit is known and its entry not yet."""
        return self.entry_quantity - self.exit_quantity

    @property
    def planned_legs(self) -> set[int]:
        """The trade's own order is leg 0, whether its legs list it or only what is to follow."""
        return {0, *(leg["leg_index"] for leg in self.trade["legs"])}

    def is_beyond_stop(self, fill: Plain) -> bool:
        """Whether a fill was made where the position was to be given up."""
        if self.trade["stop_loss_price"] is None:
            return False
        stop, price = decimals.unscaled(self.trade["stop_loss_price"]), decimals.unscaled(fill["price"])
        return price <= stop if self.trade["direction"] == "LONG" else price >= stop

    def apply(self, fill: Plain) -> bool:
        """Take one fill; whether the position is closed by it. A repeated one changes nothing."""
        if fill["event_id"] in self.fill_ids:
            return False
        self.fill_ids[fill["event_id"]] = None
        is_entry = (fill["side"] == "BUY") == (self.trade["direction"] == "LONG")
        if is_entry:
            self.legs.add((fill["trade_id"], fill["leg_index"] or 0))
        change, before = self._moved(fill), self.held
        closing = -before if is_entry else before
        if 0 < closing <= change.quantity:
            self.is_closed = True
            self.excess = change.quantity - closing
            change = change.part(closing)
        self._add(change, is_entry=is_entry)
        self._seen_at(fill["event_time"], decimals.unscaled(fill["price"]))
        return self.is_closed

    def _seen_at(self, time_us: int, price: int) -> None:
        lowest, highest = self.fill_prices or (price, price)
        self.fill_prices = (min(lowest, price), max(highest, price))
        self.opened_at_us = time_us if self.opened_at_us is None else min(self.opened_at_us, time_us)

    def _moved(self, fill: Plain) -> Moved:
        if fill["fee"] is None:
            self.unknown_fees += 1
            return moved(fill, fee=0, fee_is_quote=None)
        fee, asset = decimals.unscaled(fill["fee"]), (fill["fee_asset"] or "").upper()
        is_quote = names.is_quote(asset, fill["symbol"])
        if is_quote is None and fee:
            self.other_fees[asset or UNKNOWN_ASSET] += fee
        return moved(fill, fee=fee, fee_is_quote=is_quote)

    def _add(self, change: Moved, *, is_entry: bool) -> None:
        if is_entry:
            self.entry_quantity += change.quantity
            self.entry_value += change.value
        else:
            self.exit_quantity += change.quantity
            self.exit_value += change.value
        self.fees += change.fee_quote
        self.largest = max(self.largest, abs(self.held))

    def result(self) -> dict[str, Any]:
        """The fields of TradeClosed that follow from the fills."""
        gained = (
            self.exit_value - self.entry_value
            if self.trade["direction"] == "LONG"
            else self.entry_value - self.exit_value
        )
        pnl = gained - self.fees
        return {
            "quantity": money(self.largest),
            "entry_cost_quote": money(self.entry_value),
            "exit_value_quote": money(self.exit_value),
            "entry_price_avg": _average(self.entry_value, self.entry_quantity),
            "exit_price_avg": _average(self.exit_value, self.exit_quantity),
            "fees_quote": money(self.fees),
            "pnl_quote": money(pnl),
            # Of two integers, so that it is the double nearest to the quotient.
            "pnl_ratio": pnl / self.entry_value if self.entry_value else None,
            "legs_filled": len(self.legs),
            "legs_max": max(len(self.planned_legs), len(self.legs)),
            "fill_ids": list(self.fill_ids),
            "tags": self._remarks(),
        }  # fmt: skip

    def _remarks(self) -> dict[str, str]:
        """What the amounts leave out, under names that say so."""
        remarks = {}
        if self.other_fees:
            remarks["fees_left_out"] = " ".join(
                f"{money(fee):f} {asset}," for asset, fee in sorted(self.other_fees.items())
            )[:-1]
        if self.unknown_fees:
            remarks["fills_without_fee"] = str(self.unknown_fees)
        if self.excess:
            remarks["quantity_beyond_position"] = f"{money(self.excess):f}"
        return remarks


def money(unscaled: int) -> Decimal:
    """So many units of 10**-18."""
    return decimals.from_unscaled(unscaled)


def _average(value: int, quantity: int) -> Decimal | None:
    return money(rounded(value * UNIT, quantity)) if quantity else None
