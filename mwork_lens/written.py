"""How numbers are written for people: signs, shares, intervals and p-values, in the terminal, on pages and in figures."""

import math

import numpy as np
import pandas as pd

UNKNOWN = "–"
"""What stands where there is no number."""


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number for people: a true minus sign, no sign on what rounds to zero, a dash for nan."""
    if not np.isfinite(value):
        return UNKNOWN
    text = f"{abs(value):,.{digits}f}"
    sign = "−" if value < 0 else "+" if signed else ""
    return (sign if text.strip("0.,") else "") + text


def interval(low: float, high: float, digits: int = 3) -> str:
    """`[low, high]`; a dash if either is unknown."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return UNKNOWN
    return f"[{number(low, digits)}, {number(high, digits)}]"


def percent(share: float) -> str:
    """`4.7%`, `38%`: one decimal below ten percent."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def written_p(p: float) -> str:
    """A p-value with two decimals, or as many as its first digit needs: 1 / (1 + draws) is never 0.00. A dash for nan."""
    return number(p, 2 if not 0 < p < 0.01 else math.ceil(-math.log10(p)))


def sensible_digits(low: pd.Series, high: pd.Series) -> int:
    """Decimals for a column of estimates: two significant digits of the typical half-width of their intervals, between 2 and 5."""
    half = ((high - low).abs() / 2).replace(0, np.nan).median()
    return int(np.clip(1 - np.floor(np.log10(half)), 2, 5)) if np.isfinite(half) else 3
