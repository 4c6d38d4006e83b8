"""CPU per proxied request, side by side: flyproxy's edge against HAProxy (and nginx with --nginx), in one run.

A GET of about 620 bytes with ten headers, a 1 KiB answer, 64 keep-alive connections, metrics on, access log off.
Proxies share CPU 0 one after the other; wrk and the upstream nginx share CPU 1. What counts is the proxy's own CPU
time (user and system, from /proc) per request; requests/s is bounded by the load generator. Peers take turns, medians
of the rounds.

`--varied` gives every request its own Cookie, Referer and X-Request-Id, so that nothing remembered of lines flatters.
`--awake` holds /dev/cpu_dma_latency open while it measures, so that an idle CPU polls: otherwise a proxy that is slower
than the load generator also pays for waking the generator and the upstream, about 8 us a request on a virtual machine,
which no proxy pays to a peer behind a network card. Needs root.

    python bench/edge/small.py [--rounds 3] [--seconds 1] [--json FILE] [--loop asyncio] [--new-connections]
                               [--varied] [--awake] [--nginx]
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROXY_CPU, LOAD_CPU = "0", "1"
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.9,de;q=0.8",
    "Accept-Encoding": "gzip, deflate, br",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark",
    "Referer": "http://hello.test/some/page/somewhere",
    "Cache-Control": "max-age=0",
    "Upgrade-Insecure-Requests": "1",
    "DNT": "1",
}
SCRIPT = """
local n = 0
local headers = {%s}
request = function()
  n = n + 1
  %s
  return wrk.format("GET", "/path/to/resource?item=" .. n, headers)
end
"""
VARY = """
  headers["Cookie"] = string.format("session=%08x%08x%08x%08x; theme=dark", n, math.random(2^31), n * 7, n * 13)
  headers["Referer"] = "http://hello.test/some/page/" .. n
  headers["X-Request-Id"] = string.format("%08x%08x%08x%08x", math.random(2^31), n, math.random(2^31), n)
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def start(cpu: str, *command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["taskset", "-c", cpu, *command], stdout=subprocess.DEVNULL)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children that still run."""
    total = 0
    for one in [pid, *children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(grandchild for child in found for grandchild in children(child))]


def nginx_upstream(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    conf = folder / "upstream.conf"
    conf.write_text(
        f"daemon off; worker_processes 1; pid {folder}/upstream.pid; error_log stderr crit;"
        " events { worker_connections 1024; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; server {{ listen 127.0.0.1:{port};"
        f" location / {{ return 200 '{'x' * 1024}'; }} }} }}\n"
    )
    return start(LOAD_CPU, "nginx", "-c", str(conf), "-p", str(folder))


def nginx_proxy(folder: Path, port: int, upstream: int) -> "subprocess.Popen[bytes]":
    conf = folder / "proxy.conf"
    conf.write_text(
        f"daemon off; worker_processes 1; pid {folder}/proxy.pid; error_log stderr crit;"
        " events { worker_connections 1024; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; upstream u {{ server 127.0.0.1:{upstream}; keepalive 64;"
        f" keepalive_requests 1000000; }} server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u;"
        ' proxy_http_version 1.1; proxy_set_header Connection "";'
        " proxy_set_header X-Forwarded-For $remote_addr; } } }\n"
    )
    return start(PROXY_CPU, "nginx", "-c", str(conf), "-p", str(folder))


def haproxy(folder: Path, port: int, upstream: int) -> "subprocess.Popen[bytes]":
    conf = folder / "haproxy.cfg"
    conf.write_text(
        "global\n  nbthread 1\n  maxconn 1000\ndefaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n"
        "  timeout connect 2s\n  http-reuse always\n  option forwardfor\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s 127.0.0.1:{upstream}\n"
    )
    return start(PROXY_CPU, "haproxy", "-db", "-f", str(conf))


def flyproxy(folder: Path, port: int, upstream: int, loop: str) -> "subprocess.Popen[bytes]":
    worker = Path(__file__).with_name("one_worker.py")
    return start(PROXY_CPU, sys.executable, str(worker), str(folder), str(port), str(upstream), loop)


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """No CPU sleeps while this lasts (the kernel's PM QoS interface; it ends with the descriptor)."""
    with open("/dev/cpu_dma_latency", "wb", buffering=0) as latency:
        latency.write(bytes(4))
        yield


def load(folder: Path, port: int, seconds: float, new_connections: bool, varied: bool) -> int:
    headers = dict(HEADERS, Connection="close") if new_connections else HEADERS
    script = folder / "load.lua"
    script.write_text(
        SCRIPT
        % (
            ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()),
            VARY if varied else "",
        )
    )
    output = subprocess.run(
        ["taskset", "-c", LOAD_CPU, "wrk", "-t1", "-c64", f"-d{max(1, round(seconds))}s", "-s", str(script), "-H",
         "Host: hello.test", f"http://127.0.0.1:{port}/"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    if "Non-2xx" in output:
        raise SystemExit(output)
    return int(output.partition(" requests in")[0].split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--loop", default="uvloop")
    parser.add_argument("--nginx", action="store_true")
    parser.add_argument("--new-connections", action="store_true")
    parser.add_argument("--varied", action="store_true")
    parser.add_argument("--awake", action="store_true")
    asked = parser.parse_args()
    missing = [program for program in ("haproxy", "nginx", "wrk", "taskset") if shutil.which(program) is None]
    if missing:
        raise SystemExit(f"needs {', '.join(missing)}")
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name, awake() if asked.awake else contextlib.nullcontext():
        folder = Path(name)
        upstream = free_port()
        ports = {peer: free_port() for peer in ("haproxy", "flyproxy", *(["nginx"] if asked.nginx else []))}
        try:
            running.append(nginx_upstream(folder, upstream))
            peers = {
                "haproxy": haproxy(folder, ports["haproxy"], upstream),
                "flyproxy": flyproxy(folder, ports["flyproxy"], upstream, asked.loop),
            }
            if asked.nginx:
                peers["nginx"] = nginx_proxy(folder, ports["nginx"], upstream)
            running += peers.values()
            for port in ports.values():
                wait_for(port)
            rounds: dict[str, list[float]] = {peer: [] for peer in peers}
            rates: dict[str, list[float]] = {peer: [] for peer in peers}
            for _ in range(asked.rounds):
                for peer, process in peers.items():
                    before, begun = cpu_seconds(process.pid), time.monotonic()
                    requests = load(folder, ports[peer], asked.seconds, asked.new_connections, asked.varied)
                    rounds[peer].append((cpu_seconds(process.pid) - before) / requests * 1e6)
                    rates[peer].append(requests / (time.monotonic() - begun))
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait()
    base = statistics.median(rounds["haproxy"])
    print(f"{'':10} {'CPU us/request':>15} {'to HAProxy':>11} {'requests/s':>11}")
    for peer, values in rounds.items():
        median = statistics.median(values)
        print(f"{peer:10} {median:15.1f} {median / base:11.2f} {statistics.median(rates[peer]):11.0f}")
    if asked.json:
        asked.json.write_text(json.dumps({"cpu_us_per_request": rounds, "requests_per_s": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
