"""The small app that `flyproxy demo` starts where no other is given: a few routes, and its own metrics.

    python -m flyproxy.cli.demo_app --port 8081

Standard library and prometheus_client only, so that it runs from an installed wheel.
"""

import argparse
import random
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

SLEEP_MS_MAX = 2000
BODY_BYTES_MAX = 1 << 20

EVENTS = Counter("events_by_type", "Events by their type", ["event_type"])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/metrics":
            self.answer(200, generate_latest(), CONTENT_TYPE_LATEST)
        elif url.path == "/":
            self.answer(200, b"Hello, World!\n")
        elif url.path.startswith("/hello/"):
            EVENTS.labels("signup" if url.path == "/hello/signup" else "other").inc()
            self.answer(200, b"you have been recorded\n")
        elif url.path == "/slow":
            asked = parse_qs(url.query).get("ms", [""])[0]
            milliseconds = min(SLEEP_MS_MAX, int(asked) if asked.isdigit() else random.randint(60, 400))
            time.sleep(milliseconds / 1000)
            self.answer(200, b"slept\n")
        elif url.path == "/broken":
            self.answer(500, b"this route always fails\n")
        else:
            self.answer(404, b"no such route\n")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            self.answer(411, b"say how long the body is, at most 1 MiB\n")
            return
        self.rfile.read(int(length))
        self.answer(201 if self.path == "/orders" else 404, b"{}\n")

    def answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """The front door has a log of its own."""


class Server(ThreadingHTTPServer):
    """Threads end with the process."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    arguments = parser.parse_args()
    Server((arguments.host, arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
