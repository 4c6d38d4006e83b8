"""The keys of a fly.toml, and what becomes of each: read, not the front door's business, or not built yet.

From Fly's reference (configuration), flyctl's structures, and what older files still hold. What is not built has a
sentence that says what happens instead; it is said only where the file asks for something (`force_https = false` asks
for nothing).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NotBuilt:
    """A key that is the front door's business, and is not done yet."""

    what: str
    instead: str
    nothing: tuple[object, ...] = (False, [], {}, 0, "")
    """Values that ask for nothing."""

    @property
    def sentence(self) -> str:
        return f"not built yet: {self.what}; {self.instead}"


READ = None
"""Read by fly_toml.py."""
IGNORED = NotBuilt("", "", ())
"""Not the front door's business."""

Keys = dict[str, NotBuilt | None]

LIMITS_SENTENCE = "not built yet: enforcing limits; an instance gets all that comes"

_HEALTH = NotBuilt("health checks", "an instance gets requests whether it would pass or not")
_REDIRECT = NotBuilt("force_https", "plain HTTP is answered, not redirected")
_TLS_OPTIONS = NotBuilt("TLS", "plain HTTP is served")

_MACHINES: Keys = {
    "auto_stop_machines": NotBuilt(
        "stopping idle instances", "they are neither stopped nor started", (False, "off", "")
    ),
    "auto_start_machines": IGNORED,  # where nothing is stopped, nothing has to be started
    "min_machines_running": IGNORED,
    "autostop": IGNORED,
    "autostart": IGNORED,
    "machine_checks": IGNORED,  # run at a deploy
}

TOP: Keys = {
    "app": READ,
    "primary_region": READ,
    "http_service": READ,
    "services": READ,
    "metrics": READ,
    "metric": READ,
    "processes": READ,
    "experimental": READ,
    "checks": _HEALTH,
    "statics": NotBuilt("serving statics", "the app is asked for them"),
    **dict.fromkeys(
        ("app_name", "build", "compute", "computes", "console_command", "deploy", "env", "files", "host_dedication_id",
         "kill_signal", "kill_timeout", "machine_checks", "mount", "mounts", "org", "organization", "restart",
         "schedule", "swap_size_mb", "vm"),
        IGNORED,
    ),
}  # fmt: skip

HTTP_SERVICE: Keys = {
    "internal_port": READ,
    "processes": READ,
    "concurrency": READ,
    "http_options": READ,
    "force_https": _REDIRECT,
    "tls_options": _TLS_OPTIONS,
    "checks": _HEALTH,
    "http_checks": _HEALTH,
    "tcp_checks": _HEALTH,
    **_MACHINES,
}

SERVICE: Keys = {
    "protocol": READ,
    "internal_port": READ,
    "processes": READ,
    "concurrency": READ,
    "ports": READ,
    "checks": _HEALTH,
    "http_checks": _HEALTH,
    "tcp_checks": _HEALTH,
    "script_checks": IGNORED,
    "force_instance_description": IGNORED,
    "force_instance_key": IGNORED,
    **_MACHINES,
}

PORT: Keys = {
    "port": READ,
    "start_port": READ,
    "end_port": READ,
    "handlers": READ,
    "http_options": READ,
    "force_https": _REDIRECT,
    "tls_options": IGNORED,  # the handler is warned of
    "proxy_proto_options": READ,
}

PROXY_PROTO_OPTIONS: Keys = {"version": READ}

HTTP_OPTIONS: Keys = {
    "response": READ,
    "compress": NotBuilt("compressing responses", "they pass as the app sends them"),
    "h2_backend": NotBuilt("HTTP/2 to the app", "the app is spoken to in HTTP/1.1"),
    "idle_timeout": NotBuilt("an app's own idle_timeout", "timeouts.idle holds for all"),
    "headers_read_timeout": NotBuilt("an app's own headers_read_timeout", "timeouts.head holds for all"),
    "replay_cache": NotBuilt("fly-replay", "requests are not replayed"),
}

RESPONSE: Keys = {
    "headers": NotBuilt("changing response headers", "they pass as the app sends them"),
    "pristine": NotBuilt("pristine responses", "Server and Via name the front door"),
}

METRICS: Keys = dict.fromkeys(("port", "path", "https", "processes"), READ)

CONCURRENCY: Keys = dict.fromkeys(("type", "soft_limit", "hard_limit"), READ)
