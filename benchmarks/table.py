"""The table that is printed, line by line as figures come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LIMIT: Final = ("nginx", "alone", "type=s3", "type=local")
"""Names of what sets the limit: of serving files, of hashing and writing them, and of a cache that
BuildKit keeps in S3 or in a folder by itself."""

_FORM: Final = "{:<52} {:<14} {:>10} {:>12} {:>10} {:>7} {:>7}  {}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure of ours is to be: in words, and whether it is."""

    words: str
    met: bool


def at_least(least: float, figure: float) -> Target:
    return Target(f">= {_number(least)}", figure >= least)


def at_most(most: float, figure: float) -> Target:
    return Target(f"<= {_number(most)}", figure <= most)


def times(figures: Mapping[str, float], most: float, peer: str) -> Target:
    """At most so many times the peer's figure."""
    return Target(f"<= {most:g} x {peer}", figures["cacheproxy"] <= most * figures[peer])


def no_less(figures: Mapping[str, float], peer: str) -> Target:
    """At least the peer's figure."""
    return Target(f">= {peer}", figures["cacheproxy"] >= figures[peer])


def ahead(figures: Mapping[str, float], peer: str) -> Target:
    """Less than the peer's figure."""
    return Target(f"< {peer}", figures["cacheproxy"] < figures[peer])


def print_heading() -> None:
    names = ("row", "unit", "cacheproxy", "distribution", "limit", "/ dist", "/ limit", "target")
    print(_FORM.format(*names), flush=True)


def print_line(
    row: str, unit: str, figures: Mapping[str, float], target: Target | None = None
) -> None:
    """Print the figures of each peer by name, and ours as a multiple of theirs."""
    ours = figures["cacheproxy"]
    peer = figures.get("distribution")
    limit = next((figures[name] for name in LIMIT if name in figures), None)
    cells = (_number(ours), _number(peer), _number(limit), _ratio(ours, peer), _ratio(ours, limit))
    print(_FORM.format(row, unit, *cells, _verdict(target)).rstrip(), flush=True)


def _verdict(target: Target | None) -> str:
    if target is None:
        return ""
    return f"{target.words:<22} {'met' if target.met else 'MISSED'}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(ours: float, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if theirs else "-"
