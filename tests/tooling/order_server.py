"""A far side of webhooks, as a process: `order_server.py BOOK PLAN`. It prints its port.

BOOK gets a line for every request, on disk before anything is answered. PLAN, read at each request, says what to do:
`answers`, a list of acts of which each POST under a key takes the next one and then the last one again (`by_symbol` has
one for each symbol); `is_idempotent`.
Acts: an HTTP status; "hang" takes the order and answers after `hang_s`; "reset" takes it and resets the connection;
"drop" resets without taking it; "500 but taken" is what it says. A status of 2xx takes the order. `retry_after` is sent along with 429.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    book: Path
    plan: Path
    seen: Counter[str] = Counter()
    orders: Counter[str] = Counter()

    def do_POST(self) -> None:
        key, plan = self.headers["Idempotency-Key"], self._plan()
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with LOCK:
            symbol = json.loads(body)["symbol"]
            acts = plan.get("by_symbol", {}).get(symbol) or plan.get("answers", [200])
            act = acts[min(self.seen[key], len(acts) - 1)]
            self.seen[key] += 1
            is_taken = act in ("hang", "reset") or (isinstance(act, int) and 200 <= act < 300) or act == "500 but taken"
            is_order = is_taken and not (plan.get("is_idempotent") and self.orders[key])
            self.orders[key] += is_order
            self._note(key, is_order=is_order, body=body)
        if act == "hang":
            time.sleep(plan.get("hang_s", 30))
        if act in ("reset", "drop"):
            self._reset()
            return
        if act == "500 but taken":
            act = 500
        headers = {"Retry-After": str(plan.get("retry_after", 0))} if act == 429 else {}
        self._answer(act if isinstance(act, int) else 200, {"order_id": f"order-{key}"}, headers)

    def do_GET(self) -> None:
        key = parse_qs(urlsplit(self.path).query)["idempotency_key"][0]
        with LOCK:
            self._note(key, is_order=False, body="")
        if self.orders[key]:
            self._answer(200, {"order_id": f"order-{key}"}, {})
        else:
            self._answer(404, {}, {})

    def _plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.plan.read_text())
        return found

    def _note(self, key: str, *, is_order: bool, body: str) -> None:
        line = {"method": self.command, "key": key, "is_order": is_order, "body": body, "headers": dict(self.headers)}
        with self.book.open("a") as out:
            out.write(json.dumps(line) + "\n")
            out.flush()
            os.fsync(out.fileno())

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _answer(self, status: int, document: dict[str, str], headers: dict[str, str]) -> None:
        content = json.dumps(document).encode()
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> None:
    """Serve until we are ended."""
    Handler.book, Handler.plan = Path(sys.argv[1]), Path(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
