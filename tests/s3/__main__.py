"""The proxy before S3 as a program: `python -m tests.s3 UPSTREAM [--delay SECONDS]`.

It prints its URL. Then a line `delay SECONDS` on standard input changes the delay, and `calls` has
the calls printed that have come since the last time, as JSON in one line. It ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Final

from tests.s3.calls import Call
from tests.s3.proxy import S3Proxy

_DELAY: Final = "delay "


async def _serve(upstream: str, delay: float) -> None:
    async with S3Proxy.running(upstream, delay=delay) as proxy:
        print(proxy.url, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(_obey(proxy, line.strip()), flush=True)


def _obey(proxy: S3Proxy, line: str) -> str:
    if line.startswith(_DELAY):
        proxy.delay = float(line.removeprefix(_DELAY))
        return "done"
    told = json.dumps([_told(call) for call in proxy.calls])
    proxy.reset()
    return told


def _told(call: Call) -> tuple[str, str, str, int, int]:
    return call.operation, call.kind, call.key, call.sent, call.received


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.s3", description=__doc__)
    parser.add_argument("upstream", help="the URL of an S3 server")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds added to every call")
    given = parser.parse_args()
    asyncio.run(_serve(given.upstream, given.delay))


if __name__ == "__main__":
    main()
