"""What the allocator keeps, told by the pages that the system has to give."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import resource
from cacheproxy.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [b"x" * (100 << 10) for _ in range(40)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left_alone = faults()
keep_freed_memory()
faults()
print(left_alone, faults())
"""


def test_memory_of_one_batch_serves_the_next() -> None:
    output = subprocess.check_output((sys.executable, "-c", _PROGRAM))
    left_alone, kept = map(int, output.split())
    assert left_alone > 10_000
    assert kept < 100
