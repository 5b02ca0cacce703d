"""An S3 server on loopback, and one that is throttled."""

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

THROTTLED = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3App:
    """moto behind a door that may answer 503: `throttle(n)` says whether request number n is turned away."""

    def __init__(self) -> None:
        self.throttle: Callable[[int], bool] = lambda n: False
        self.numbers = itertools.count(1)
        self.num_throttled = 0
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ, start_response):
        if self.throttle(next(self.numbers)):
            self.num_throttled += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [THROTTLED]
        return self._moto(environ, start_response)


@contextmanager
def _serving(app: S3App) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[S3App, str]]:
    app = S3App()
    with _serving(app) as url:
        yield app, url


@pytest.fixture
def s3_app(s3_server, monkeypatch) -> Iterator[S3App]:
    """The server's door; AWS clients made in the test find the server through the environment."""
    app, url = s3_server
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    yield app
    app.throttle = lambda n: False


@pytest.fixture
def s3_bucket(s3_app) -> str:
    """The s3:// address of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"
