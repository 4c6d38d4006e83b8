"""A dashboard of six panels, refreshed every 5 s as Grafana does it: six query_range at once, an hour by 15 s."""

import http.client
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from types import TracebackType

REFRESH_S = 5.0
RANGE_S, STEP_S = 3600, 15
TIMEOUT_S = 20.0

FLYPROXY = (
    "sum by (status) (rate(fly_edge_http_responses_count[1m]))",
    "sum by (app, region) (rate(fly_edge_http_responses_count[1m]))",
    "sum(rate(fly_edge_data_out[1m]))",
    "sum(rate(fly_edge_data_in[1m]))",
    "sum by (app, region) (fly_app_concurrency)",
    "sum by (app) (rate(fly_app_tcp_connects_count[1m]))",
)
HAPROXY = (
    "sum by (code) (rate(haproxy_frontend_http_responses_total[1m]))",
    "sum by (proxy) (rate(haproxy_backend_http_responses_total[1m]))",
    "sum(rate(haproxy_frontend_bytes_out_total[1m]))",
    "sum(rate(haproxy_frontend_bytes_in_total[1m]))",
    "sum by (proxy) (haproxy_backend_current_sessions)",
    "sum by (proxy) (rate(haproxy_backend_connection_attempts_total[1m]))",
)
"""What HAProxy has of the same. (It has no histogram of times; so nobody is asked for a quantile.)"""


class Dashboard:
    """Six threads that ask while the context lasts."""

    def __init__(self, port: int, path: str, queries: Sequence[str], headers: Mapping[str, str]) -> None:
        """`path`: of query_range."""
        self._address, self._path, self._headers = ("127.0.0.1", port), path, dict(headers)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.answers_ms: list[float] = []
        """One a panel and refresh."""
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._refresh, args=(query,), daemon=True) for query in queries]

    def __enter__(self) -> "Dashboard":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _refresh(self, query: str) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            begun = time.monotonic()
            fault = self._ask(query)
            with self._lock:
                self.answers_ms.append((time.monotonic() - begun) * 1000)
                if fault:
                    self.failed.append(fault)
            due += REFRESH_S

    def _ask(self, query: str) -> str:
        end = int(time.time()) // STEP_S * STEP_S
        form = urllib.parse.urlencode({"query": query, "start": end - RANGE_S, "end": end, "step": STEP_S})
        headers = {**self._headers, "Content-Type": "application/x-www-form-urlencoded"}
        connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_S)
        try:
            connection.request("POST", self._path, form, headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200 and b'"values"' in body:
                return ""
            return f"{answer.status} {query}: {body[:200]!r}"
        except (OSError, http.client.HTTPException) as fault:
            return f"{query}: {fault!r}"
        finally:
            connection.close()
