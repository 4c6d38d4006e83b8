"""The first count of a scraped counter: shown where it happened just now, not invented where it is old."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest


class Pages:
    """An app's metrics: a page by path, as text; None answers 500."""

    def __init__(self) -> None:
        self.by_path: dict[str, str | None] = {}
        pages = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.by_path[self.path]
                body = (page or "").encode()
                self.send_response(500 if page is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages()
    yield pages
    pages.server.shutdown()
    pages.thread.join()
    pages.server.server_close()


def test_a_first_count_is_shown_and_an_old_one_is_not(
    start_front_door: Any, toolbox: dict[str, Any], pages: Pages
) -> None:
    def app(name: str, region: str = "ord") -> dict[str, Any]:
        instance = {"address": pages.address, "region": region}
        return {"name": name, "metrics": {"path": f"/{name}"}, "instances": [instance]}

    eventually = toolbox["eventually"]
    old = '# TYPE hits_total counter\nhits_total{status="200"} 1000000\n'
    pages.by_path = {"/steady": old, "/late": None, "/moved": old, "/fresh": None}
    config = {
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}"}],
        "telemetry": {"scrape_interval": "500ms"},
        "apps": [app(name) for name in ("steady", "late", "moved", "fresh")],
    }
    door = start_front_door(config)

    def increases(name: str) -> dict[Any, float]:
        """By region and status, what a dashboard shows."""
        found: dict[Any, float] = door.vector(f'increase(hits_total{{app="{name}"}}[1m])', "region", "status")
        return found

    eventually(lambda: door.vector("count_over_time(up[1m]) > 2", "app").keys() >= {("steady",), ("late",)})
    pages.by_path["/steady"] = f'{old}hits_total{{status="500"}} 1\n'
    pages.by_path["/late"] = old
    pages.by_path["/fresh"] = (
        f'# TYPE hits_total counter\nhits_total{{status="500"}} 2\nhits_created{{status="500"}} {time.time():.3f}\n'
    )
    text = json.loads(door.config.read_text())
    text["apps"][2] = app("moved", "fra")
    door.config.write_text(json.dumps(text))
    assert door.reload().status == 200
    shown = eventually(lambda: (found := increases("steady")).get(("ord", "500"), 0) > 0.9 and found)
    assert shown["ord", "200"] == 0
    shown = eventually(lambda: (found := increases("fresh")).get(("ord", "500"), 0) > 1.9 and found)
    assert shown["ord", "500"] < 5
    assert eventually(lambda: increases("late")) == {("ord", "200"): 0}, "it may have counted for years"
    assert eventually(lambda: ("fra", "200") in (found := increases("moved")) and found) == {
        ("ord", "200"): 0,
        ("fra", "200"): 0,
    }, "the same counters under other labels"
