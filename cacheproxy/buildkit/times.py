"""Times as Go writes them into JSON: RFC 3339 with up to nine digits of fraction."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_FORM: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1)
_SECOND: Final = 10**9

ZERO_TIME: Final = -62135596800 * _SECOND
"""Go's zero time, the year 1: what an absent time means."""


def parse_time(text: str) -> int:
    """Nanoseconds since 1970.

    Raises:
        ValueError: it is no such time.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.60} is not a time")
    clock, fraction, sign, hours, minutes = found.groups()
    # toordinal and friends are exact; timestamp() would go through a float
    since = datetime.fromisoformat(clock) - _EPOCH
    seconds = since.days * 86400 + since.seconds
    if sign is not None:
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError(f"{text!r:.60} is not a time")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += offset if sign == "-" else -offset
    return seconds * _SECOND + (int(fraction.ljust(9, "0")) if fraction else 0)


def format_time(nanoseconds: int) -> str:
    """The shortest form in UTC, which is what Go writes; times outside years 1-9999 are clamped."""
    seconds, fraction = divmod(nanoseconds, _SECOND)
    seconds = min(max(seconds, -62135596800), 253402300799)
    clock = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat()[:19]
    return f"{clock}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{clock}Z"
