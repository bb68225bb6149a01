"""Numbers for people: two digits of the standard error, thousands apart, a dash for what the data do not allow."""

from __future__ import annotations

import math

DASH = "–"


def measured(value: float | None, sigma: float | None) -> str:
    """Return a value with its standard error, two digits of it.

    >>> measured(20.1234, 0.217)
    '20.12 ± 0.22'
    """
    if value is None:
        return DASH
    if not sigma:
        return f"{value:.4g}"
    decimals = min(max(1 - math.floor(math.log10(sigma)), 0), 6)
    return f"{value:.{decimals}f} ± {sigma:.{decimals}f}"


def rounded(value: float | None, digits: int) -> str:
    """Return a value with so many decimals."""
    return DASH if value is None else f"{value:.{digits}f}"


def plain(value: float | None) -> str:
    """Return a number without an exponent, thousands apart."""
    if value is None:
        return DASH
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u2009")
