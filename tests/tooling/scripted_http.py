"""A web server on the loopback address that answers what a test has written down for each request."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Answer(NamedTuple):
    """What is sent: a status and a body. With `wait` it is held back until that is set."""

    status: int
    body: str = ""
    wait: threading.Event | None = None


class Asked(NamedTuple):
    """What was asked: method and path, the body, the Authorization header."""

    line: str
    body: str
    authorization: str | None


class ScriptedServer:
    """Serves `answers`, by "METHOD /path"; anything else is a 404 with an empty body. `asked` holds every request."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _answer(self) -> None:
                line = f"{self.command} {self.path}"
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                scripted.asked.append(Asked(line, body, self.headers.get("Authorization")))
                answer = scripted.answers.get(line, Answer(404))
                if answer.wait is not None:
                    answer.wait.wait(10)
                content = answer.body.encode()
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815  # the names that http.server looks for

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving(answers: Mapping[str, Answer]) -> Iterator[ScriptedServer]:
    """A server for as long as a test needs it."""
    server = ScriptedServer(answers)
    try:
        yield server
    finally:
        server.close()
