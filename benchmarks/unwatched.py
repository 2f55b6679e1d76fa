"""`cacheproxy` that counts nothing, to see what counting costs. This is run as a script."""

from __future__ import annotations

import sys

from cacheproxy.__main__ import main
from cacheproxy.counting import Counting
from cacheproxy.telemetry import Metrics

SERVE = (sys.executable, "-P", __file__, "serve")


def _nothing(*told: object) -> None:
    pass


if __name__ == "__main__":
    for owner, name in ((Counting, "request_ended"), (Metrics, "lagged"), (Metrics, "s3_asked")):
        setattr(owner, name, _nothing)
    main()
