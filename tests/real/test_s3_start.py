"""A server process on S3: how it starts, and how it says that it cannot."""

from __future__ import annotations

import hashlib
import http.client
import signal
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from tests.real.process import Output, attempt
from tests.real.seaweed import SeaweedFS
from tests.real.weak_s3 import WeakS3, juicefs, rclone
from tests.s3.process import ProxyProcess
from tests.server import QUICK, S3, SERVE, Server, on_s3

# Less than a write to S3 is tried for.
_QUICK_SECONDS = 25


# What JuiceFS must be told for it to be an S3 at all, see the last but one test.
_JUICEFS = partial(juicefs, flags=("--keep-etag", "--object-meta"))


@pytest.fixture(scope="module", params=[rclone, _JUICEFS], ids=["rclone", "JuiceFS"])
def weak(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WeakS3]:
    """An S3 without conditional writes."""
    with request.param(tmp_path_factory.mktemp("weak")) as server:
        yield server


def _serve(folder: Path, s3: S3, *flags: str, prefix: str = "", **variables: str) -> Output:
    """Start a server that is expected to end by itself."""
    environment, options = on_s3(folder, s3, prefix or "wrong")
    command = (*SERVE, "--listen=127.0.0.1:0", *options, *flags)
    return attempt(command, environment=environment | variables, seconds=_QUICK_SECONDS)


def _said(output: Output) -> str:
    """The one line on standard error of a server that has refused to start."""
    assert output.status == 1
    assert output.stdout == ""
    [line] = output.stderr.splitlines()
    assert line.startswith("cacheproxy: ")
    return line.removeprefix("cacheproxy: ")


@pytest.mark.parametrize(
    ("flags", "variables", "says"),
    [
        (["--storage=s3://nowhere/x"], {}, "storage.url: there is no bucket 'nowhere' at {s3}"),
        ([], {"AWS_ACCESS_KEY_ID": "nobody"}, "storage.url: the access key is not known at {s3}"),
        (
            [],
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            "storage.url: the secret key does not fit the access key at {s3}",
        ),
        (
            ["--s3-endpoint-url=http://127.0.0.1:9"],
            {},
            "storage.url: S3 at http://127.0.0.1:9 cannot be reached: ",
        ),
        (
            ["--s3-endpoint-url=127.0.0.1"],
            {},
            "storage.url: S3 cannot be used like this: Invalid endpoint: 127.0.0.1",
        ),
        (["--s3-ca-file=/nowhere.pem"], {}, "storage.url: /nowhere.pem holds no certificates"),
    ],
    ids=["bucket", "access key", "secret key", "no network", "endpoint", "CA file"],
)
def test_what_is_wrong_is_said_in_one_line(
    seaweed: SeaweedFS,
    tmp_path: Path,
    flags: list[str],
    variables: dict[str, str],
    says: str,
) -> None:
    """No traceback, no log, exit status 1, within seconds."""
    began = time.monotonic()
    line = _said(_serve(tmp_path, seaweed, *flags, **variables))

    assert line.startswith(says.format(s3=seaweed.endpoint))
    assert time.monotonic() - began < _QUICK_SECONDS


def test_a_bucket_without_conditional_writes_is_served_by_one_process(
    weak: WeakS3, tmp_path: Path
) -> None:
    """It is said plainly, pushes and pulls work, and a second server is told who the first is."""
    with Server.on_s3(tmp_path / "first", weak, "only") as server:
        server.daemon.wait_for_log("the only replica.*bucket_without_conditional_writes")
        _push_and_pull(server)

        said = _said(_serve(tmp_path, weak, prefix="only"))

        owner = f"pid {server.daemon.pid} "
        assert said.startswith("storage.url: the bucket is in use by ")
        assert owner in said
        _push_and_pull(server)
        server.daemon.signal(signal.SIGTERM)
        assert server.daemon.wait_for_end() == 0
    with Server.on_s3(tmp_path / "second", weak, "only") as server:
        _push_and_pull(server)


def test_several_workers_need_conditional_writes(weak: WeakS3, tmp_path: Path) -> None:
    """They would be several servers."""
    said = _said(_serve(tmp_path, weak, "--workers=2"))

    assert "no conditional writes" in said
    assert "set server.workers to 1" in said


def test_a_bucket_that_loses_what_is_needed_is_refused(tmp_path: Path) -> None:
    """JuiceFS, as it comes, has neither metadata nor ETags."""
    (tmp_path / "juicefs").mkdir()
    with juicefs(tmp_path / "juicefs") as s3:
        said = _said(_serve(tmp_path, s3))

    assert said.endswith("cannot be used: the bucket gives its objects no ETag")


def test_servers_share_a_bucket_with_conditional_writes(
    seaweed: SeaweedFS, s3_prefix: str, tmp_path: Path
) -> None:
    """What one has acknowledged, the other has."""
    with (
        Server.on_s3(tmp_path / "first", seaweed, s3_prefix) as first,
        Server.on_s3(tmp_path / "second", seaweed, s3_prefix, command=QUICK) as second,
    ):
        path = _push_and_pull(first)

        assert _get(second, path) == _CONTENT


def test_no_key_and_no_signed_address_is_logged(
    seaweed: SeaweedFS, s3_prefix: str, tmp_path: Path
) -> None:
    """Not by a redirect, nor when S3 has gone, however much is logged."""
    flags = ("--log-level=debug", "--s3-redirect-bytes=1")
    with ExitStack() as stack:
        proxy = stack.enter_context(ProxyProcess.running(seaweed.endpoint))
        options = (f"--s3-endpoint-url={proxy.url}", *flags)
        with Server.on_s3(tmp_path / "server", seaweed, s3_prefix, *options) as server:
            path = _push_and_pull(server)
            stack.close()
            with pytest.raises(urllib.error.HTTPError, match="503"):
                server.get(path.replace("sha256:", "sha256:0")[:-1])
            server.daemon.wait_for_log('"status":503')
            log = server.daemon.log

    assert '"status":307' in log
    assert "Traceback" in log
    for secret in (seaweed.secret_key, "X-Amz-Signature", "X-Amz-Credential"):
        assert secret not in log


_CONTENT = b"a layer"


def _push_and_pull(server: Server) -> str:
    """Push the content and see it come back; its path."""
    digest = f"sha256:{hashlib.sha256(_CONTENT).hexdigest()}"
    with closing(http.client.HTTPConnection(server.host, timeout=30)) as connection:
        connection.request("POST", f"/v2/ci/app/blobs/uploads/?digest={digest}", _CONTENT)
        assert connection.getresponse().status == 201
    path = f"/v2/ci/app/blobs/{digest}"
    assert _get(server, path) == _CONTENT
    return path


def _get(server: Server, path: str) -> bytes:
    return server.get(path).encode()
