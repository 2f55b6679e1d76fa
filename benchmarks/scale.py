"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """`seconds` of each run of reads, `rounds` of each measurement, MiB of each slow upload."""

    quick: bool
    rounds: int
    seconds: float
    slow_upload_bytes: int


QUICK = Scale(quick=True, rounds=3, seconds=0.3, slow_upload_bytes=8 << 20)
WHOLE = Scale(quick=False, rounds=5, seconds=1.0, slow_upload_bytes=64 << 20)
