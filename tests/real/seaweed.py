"""SeaweedFS: the S3 server of the tests, which keeps all the promises that the server relies on."""

from __future__ import annotations

import os
import secrets
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.real.port import Port
from tests.real.process import Daemon, require
from tests.s3.signing import Signer

_ACCESS_KEY = "cacheproxy"
_SECRET_KEY = "secret-of-the-tests"
_PORTS = ("s3", "master", "volume", "filer", "admin")
_FLAGS = (
    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
    *("-webdav=false", "-admin.ui=false", "-master.telemetry=false"),
    *("-s3.port.iceberg=0", "-s3.port.lance=0"),
    "-s3.autoCreateBucket=false",  # a wrong bucket has to be an error
    *("-volume.max=0", "-master.volumeSizeLimitMB=256"),
)


class SeaweedFS:
    """An S3 server with one key pair and one bucket."""

    def __init__(self, folder: Path) -> None:
        """Use `running`."""
        self.bucket = "cache"
        self.access_key = _ACCESS_KEY
        self.secret_key = _SECRET_KEY
        self._folder = folder
        self._http = {name: Port() for name in _PORTS}
        self._grpc = {name: Port() for name in _PORTS}
        self.endpoint = f"http://{self._http['s3'].host}"
        self.signer = Signer(self.endpoint, self.access_key, self.secret_key)
        self._daemon: Daemon | None = None
        self._running = ExitStack()

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[SeaweedFS]:
        """Serve from `folder` on free loopback ports."""
        (folder / "data").mkdir(parents=True)
        seaweed = cls(folder)
        try:
            seaweed.start()
            yield seaweed
        finally:
            seaweed.stop()
            seaweed._close()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that give a program the key pair, and no other settings."""
        return credentials(self.access_key, self.secret_key)

    def fresh_prefix(self) -> str:
        """A prefix under which there is nothing, without a slash at its end."""
        return f"test-{secrets.token_hex(6)}"

    def create_bucket(self, name: str) -> None:
        url = self.signer.presign("PUT", f"/{name}")
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=30).close()

    def start(self) -> None:
        """Start it after `stop`, with the same address and data. It takes two seconds."""
        log = self._folder / "weed.log"
        self._daemon = self._running.enter_context(
            Daemon.running(self._command(), environment=self._own_environment(), log=log)
        )
        self._daemon.wait_for_log("components are running and ready to use")

    def stop(self) -> None:
        """Kill it: it would take seconds to stop by itself."""
        if self._daemon:
            self._daemon.kill_all()
        self._daemon = None
        self._running.close()
        for port in self._grpc.values():
            for left_over in Path("/tmp").glob(f"seaweedfs-*-grpc-{port.number}.sock"):
                left_over.unlink(missing_ok=True)

    def pause(self) -> None:
        """Let it hang: connections are accepted, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _close(self) -> None:
        for port in (*self._http.values(), *self._grpc.values()):
            port.close()

    def _signal(self, number: int) -> None:
        assert self._daemon, "it is stopped"
        self._daemon.signal(number)

    def _command(self) -> list[str]:
        command = [str(require("weed")), "-logtostderr=true", "mini", *_FLAGS]
        for name in _PORTS:
            command.append(f"-{name}.port={self._http[name].number}")
            command.append(f"-{name}.port.grpc={self._grpc[name].number}")
        return [
            *command,
            f"-s3.localSocket={self._folder / 's3.sock'}",
            f"-filer.localSocket={self._folder / 'filer.sock'}",
            f"-dir={self._folder / 'data'}",
            f"-bucket={self.bucket}",
        ]

    def _own_environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder),
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def credentials(access_key: str, secret_key: str) -> dict[str, str]:
    """Environment variables that keep a program from looking for credentials elsewhere."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
