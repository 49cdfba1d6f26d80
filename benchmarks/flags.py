"""Numbers on a command line: what they must be is said where they are not."""

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def whole(lowest: int = 1) -> Callable[[str], int]:
    """The type of a flag that is a whole number, `lowest` or more. It raises ArgumentTypeError."""

    def parse(text: str) -> int:
        number = _converted(int, text)
        if number is None or number < lowest:
            raise ArgumentTypeError(f"{text}: want a whole number, at least {lowest}")
        return number

    return parse


def seconds(lowest: float, highest: float) -> Callable[[str], float]:
    """The type of a flag that is a time in seconds within bounds. It raises ArgumentTypeError."""

    def parse(text: str) -> float:
        number = _converted(float, text)
        if number is None or not lowest <= number <= highest:
            raise ArgumentTypeError(f"{text}: want {lowest:g} to {highest:g} seconds")
        return number

    return parse


def listed(one: Callable[[str], Number]) -> Callable[[str], list[Number]]:
    """The type of a flag that is several, with commas between. It raises what `one` raises."""
    return lambda text: [one(part) for part in text.split(",")]


def _converted(kind: type[Number], text: str) -> Number | None:
    try:
        number = kind(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
