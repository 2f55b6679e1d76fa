"""Processes: one that serves, or several that share the ports and the folder.

The parent of several serves nothing. It holds the ports, bound but not listening, hands SIGTERM on
and replaces workers that die. Every worker inherits the descriptor of the folder's lock, so the
folder stays claimed until the last one has ended, and the end of a pipe that only the parent holds
open, so that none outlives a parent that was killed.
"""

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import Final

from cacheproxy.config import with_shared_metrics
from cacheproxy.listening import Listeners

Serve = Callable[[Listeners], None]

_RESTART_SECONDS: Final = 0.5


class Workers:
    """Several processes, each of which runs `serve` on sockets of its own on the same ports."""

    def __init__(self, listen: str, metrics: str, count: int, serve: Serve) -> None:
        # A shared port does not say when a stranger shares it.
        Listeners.bound(listen, metrics).close()
        self.listeners = Listeners.bound(listen, metrics, shared=True)
        self._count = count
        self._serve = serve
        self._running: set[int] = set()
        self._ending = False
        self._life, self._parent_end = os.pipe()

    def run(self) -> None:
        """Keep the workers running until SIGTERM or SIGINT, then until the last has ended."""
        with tempfile.TemporaryDirectory(prefix="cacheproxy-metrics-") as metrics:
            with_shared_metrics(metrics)
            signal.signal(signal.SIGTERM, self._end)
            signal.signal(signal.SIGINT, self._end)
            for _ in range(self._count):
                self._start()
            while self._running:
                dead, _ = os.wait()
                self._running.discard(dead)
                _forget(dead, metrics)
                if not self._ending:
                    time.sleep(_RESTART_SECONDS)  # a worker that cannot start must not spin
                    self._start()

    def _start(self) -> None:
        child = os.fork()
        if child:
            self._running.add(child)
            if self._ending:
                os.kill(child, signal.SIGTERM)
            return
        code = 1
        try:
            os.close(self._parent_end)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            threading.Thread(target=self._end_with_parent, daemon=True).start()
            with closing(self.listeners.again()) as listeners:
                self._serve(listeners)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)  # nothing of the parent's, such as its temporary folder, ends here

    def _end_with_parent(self) -> None:
        os.read(self._life, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True
        for worker in self._running:
            os.kill(worker, signal.SIGTERM)


def _forget(worker: int, metrics: str) -> None:
    """Remove the gauges of a dead worker, as prometheus_client's own function does, which the
    parent must not import: it would fix the kind of its values before the fork."""
    for name in os.listdir(metrics):
        if name.startswith("gauge_live") and name.endswith(f"_{worker}.db"):
            os.unlink(os.path.join(metrics, name))
