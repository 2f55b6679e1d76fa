"""How reports are printed for people."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

T = TypeVar("T")


def as_json(report: object) -> str:
    """A report as JSON, as people read it too."""
    return msgspec.json.format(msgspec.json.encode(report, enc_hook=str)).decode()


def in_all(
    reports: Mapping[str, T], lines: Callable[[T], Iterable[str]], *, json: bool = False
) -> str:
    """The reports on all namespaces: where there is only one, what is told is that on it."""
    if len(reports) == 1:
        [only] = reports.values()
        return as_json(only) if json else "\n".join(lines(only))
    if json:
        return as_json(reports)
    return "\n\n".join(
        "\n".join((f"namespace {name}", *lines(report))) for name, report in reports.items()
    )


def size(count: int) -> str:
    """Bytes, with three digits mostly."""
    unit, value = 0, float(count)
    while value >= 1000 and unit < len(_UNITS) - 1:
        unit, value = unit + 1, value / 1024
    digits = 0 if unit == 0 or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {_UNITS[unit]}"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def when(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: numbers are on the right, if their heads begin with `>`."""
    right = [head.startswith(">") for head in heads]
    lines = [[head.removeprefix(">") for head in heads], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def short(digest: str) -> str:
    """As much of a digest as people compare."""
    return digest.partition(":")[2][:12]
