"""The load: wrk with a script made for the workload, and what it reports as one line of JSON.

The request is a GET of 623 bytes with ten header lines, as a browser sends it, with a target that is new each time.
`vary` makes every value but Host's new in every request and keeps their lengths: each bears a mark nobody sent before
(the run's number and the request's), so of nine lines nothing can be remembered. Scripts put strings together and
nothing else: what the load generator spends is the load CPU's, but it bounds how fast a fast proxy can be asked.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 623
MARK = "@" * 16
"""Where a varied value bears its mark: eight hex digits of the run's number, eight of the request's."""
HEADERS = {
    "User-Agent": f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 {MARK}",
    "Accept": f"text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8;v={MARK}",
    "Accept-Language": f"en-US,en;q=0.9,de;q=0.8;v={MARK}",
    "Accept-Encoding": f"gzip, deflate, br;v={MARK}",
    "Cookie": f"session={MARK}0123456789abcdef; theme=dark",
    "Referer": f"http://hello.test/some/page/{MARK}",
    "Cache-Control": f"max-age=0, v={MARK}",
    "X-Request-Id": f"{MARK}",
    "DNT": f"1;v={MARK}",
}
"""Beside Host: the ten lines of the request."""
VARIED_LINES = len(HEADERS)
DIGITS = 8
"""Of the request's number in its target."""
PATH = "/path/to/resource?item="
HOST = "hello.test"
ERRORS_PER_MILLE_MAX = 1

SCRIPT = """
local run, n, hosts = 0, 0, %(hosts)d
local body = string.rep("x", %(body_bytes)d)
function init(args) run = tonumber(args[1]) end
function request()
  n = n + 1
  %(request)s
end
function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %%d, "bytes": %%d, "seconds": %%.6f, "failed": %%d, "p50_us": %%d, "p99_us": %%d}',
    summary.requests, summary.bytes, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked, by how many."""

    path: str = PATH
    """Numbered when it ends in "="."""
    connections: int = 64
    vary: bool = False
    close: bool = False
    """A new connection for each request."""
    upload_bytes: int = 0
    hosts: int = 1
    """How many of the apps are asked, in turns."""
    of: int = 1
    """How many there are."""

    @property
    def sent_new(self) -> int:
        """Header values of a request that were never sent before."""
        return VARIED_LINES if self.vary else 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What wrk saw."""

    requests: int
    bytes: int
    """Answers, heads included."""
    seconds: float
    failed: int
    p50_us: int
    p99_us: int


def host_name(number: int, of: int) -> str:
    """Of one app of so many."""
    return HOST if of == 1 else f"app-{number}.test"


def head(ask: Ask) -> str:
    """The request's head; MARK where a value is new each time, zeros for its number."""
    number = "0" * DIGITS if ask.path.endswith("=") else ""
    method = "POST" if ask.upload_bytes else "GET"
    headers = dict(HEADERS)
    if ask.upload_bytes:
        headers["Content-Length"] = str(ask.upload_bytes)
    if ask.close:
        headers["Connection"] = "close"
    lines = [f"{method} {ask.path}{number} HTTP/1.1", f"Host: {host_name(0, ask.of)}"]
    raw = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items())]) + "\r\n\r\n"
    padding = "p" * (HEAD_BYTES - len(raw)) if ask.path == PATH and ask.hosts == 1 and not ask.close else ""
    return raw.replace("theme=dark", f"theme=dark{padding and '; ' + padding[2:]}")


def script(ask: Ask) -> str:
    """The Lua of it."""
    raw = head(ask) if ask.vary else head(ask).replace(MARK, "0123456789abcdef")
    pieces, expressions = [raw], {}
    if ask.path.endswith("="):
        expressions[f"{ask.path}{'0' * DIGITS}"] = f'"{ask.path}" .. string.format("%0{DIGITS}d", n)'
    if ask.hosts > 1:
        expressions[f"Host: {host_name(0, ask.of)}"] = '"Host: app-" .. (run * 7919 + n * 6007) % hosts .. ".test"'
    if ask.vary:
        expressions[MARK] = "mark"
    for found in expressions:
        pieces = [part for piece in pieces for part in _around(piece, found)]
    terms = [expressions.get(piece) or json.dumps(piece) for piece in pieces if piece]
    mark = 'local mark = string.format("%08x%08x", run, n)' if ask.vary else ""
    if ask.upload_bytes:
        terms.append("body")
    return SCRIPT % {
        "hosts": ask.hosts,
        "body_bytes": ask.upload_bytes,
        "request": f"{mark}\n  return {' .. '.join(terms)}",
    }


def _around(piece: str, found: str) -> list[str]:
    parts = [piece] if piece == found else piece.split(found)
    return [part for pair in zip(parts, [found] * (len(parts) - 1) + [""], strict=True) for part in pair]


def wrk(folder: Path, port: int, ask: Ask, seconds: int, run: int, on_cpu: int) -> Asked:
    """Ask for so long; `run`: a number no other run of this day has. SystemExit when it went wrong."""
    path = folder / "load.lua"
    path.write_text(script(ask))
    command = ["taskset", "-c", str(on_cpu), "wrk", "-t1", f"-c{ask.connections}", f"-d{seconds}s", "-s", str(path)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{ask.path}", "--", str(run)], capture_output=True, text=True, check=False
    )
    report = done.stdout.strip().rpartition("\n")[2]
    if done.returncode or not report.startswith("{"):
        raise SystemExit(f"wrk failed:\n{done.stdout}{done.stderr}")
    asked = Asked(**json.loads(report))
    if asked.failed * 1000 > asked.requests * ERRORS_PER_MILLE_MAX or not asked.requests:
        raise SystemExit(f"{asked.failed} of {asked.requests} requests to port {port} failed:\n{done.stdout}")
    return asked
