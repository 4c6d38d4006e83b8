"""The configuration in force as YAML text: what `status/config` answers.

Made from the resolved values, so it says what the processes run with: every default filled in, every name looked up,
every id derived. A file of the operator's text, loaded on the same machine, resolves to the same values again (but for
`--to`, which has no key and is a comment). An organization sees what is common to all and what is its own: no other
organization's names, and nothing of the machine's file system.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from flyproxy.config.quantities import written_seconds, written_size
from flyproxy.config.resolved import (
    SEND_PROXY,
    App,
    Edge,
    Instance,
    Listener,
    MetricsEndpoint,
    Region,
    Resolved,
    Telemetry,
)

Section = dict[str, object]

_ELSEWHERE = {"host", "port", "promql_mode", "metricsql", "organizations", "regions", "scrape_limits"}
"""Fields of Telemetry that are no keys of `telemetry:` under their own names."""


def running_yaml(resolved: Resolved, organization: str | None) -> str:
    """The whole configuration for the operator (None), else what concerns one organization: not even how many raw TCP
    doors others have."""
    import yaml  # here: a process that is never asked need not load it

    text: str = yaml.safe_dump(
        _whole(resolved, organization), sort_keys=False, default_flow_style=False, allow_unicode=True, width=120
    )
    return _remark(resolved, organization) + text


def _remark(resolved: Resolved, organization: str | None) -> str:
    if not resolved.edge.any_host or (organization is not None and not _own_default(resolved.edge, organization)):
        return ""
    return f"# every host goes to the app '{resolved.edge.default_app}'\n"


def _whole(resolved: Resolved, organization: str | None) -> Section:
    edge, telemetry = resolved.edge, resolved.telemetry
    apps = [app for app in edge.apps if organization in (None, app.organization)]
    names = {app.name for app in apps}
    organizations = telemetry.organizations if organization is None else (organization,)
    return {
        "edge": _edge(resolved, names),
        "listeners": [_listener(door) for door in edge.listeners if door.app is None or door.app in names],
        "telemetry": _telemetry(telemetry, with_paths=organization is None),
        "organizations": [{"slug": slug} for slug in organizations],
        "apps": [_app(app) for app in apps],
        "limits": _keys(edge.limits),
        "timeouts": _keys(edge.timeouts),
        "scrape_limits": _keys(telemetry.scrape_limits),
        # the machine's neighbours are nobody's but the operator's
        **({"trusted_proxies": list(edge.trusted_proxies)} if organization is None else {}),
        "regions": [_region(region) for region in telemetry.regions if not region.geo_region],
        "promql": {"mode": telemetry.promql_mode, "metricsql": telemetry.metricsql},
    }


def _own_default(edge: Edge, organization: str) -> bool:
    return any(app.name == edge.default_app and app.organization == organization for app in edge.apps)


def _edge(resolved: Resolved, names: set[str]) -> Section:
    edge = resolved.edge
    return {
        "region": edge.region,
        "host": edge.host,
        "workers": resolved.workers,
        "loop": edge.loop,
        "access_log": edge.access_log,
        "default_app": _known(edge.default_app, names),
    }


def _listener(door: Listener) -> Section:
    return {
        "bind": _address(door.host, door.port),
        "handlers": [*(["proxy_proto"] if door.proxy_proto else []), *(["http"] if door.http else [])],
        "region": door.region,
        "app": door.app,
        "instance_port": door.instance_port,
        "send_proxy": None if door.send_proxy is None else SEND_PROXY[door.send_proxy],
    }


def _telemetry(telemetry: Telemetry, *, with_paths: bool) -> Section:
    section: Section = {"bind": _address(telemetry.host, telemetry.port)}
    return section | _keys(telemetry, _ELSEWHERE if with_paths else _ELSEWHERE | {"data_dir"}, dropped="_bytes")


def _app(app: App) -> Section:
    return {
        "name": app.name,
        "organization": app.organization,
        "hostnames": list(app.hostnames),
        "metrics": [_endpoint(endpoint) for endpoint in app.metrics] or None,
        "concurrency": _keys(app.concurrency),
        "send_proxy": SEND_PROXY[app.send_proxy],
        "instances": [_instance(instance) for instance in app.instances],
        "access_log": app.access_log,
    }


def _endpoint(endpoint: MetricsEndpoint) -> Section:
    return {**_keys(endpoint), "processes": list(endpoint.processes)}


def _instance(instance: Instance) -> Section:
    return {
        "address": _address(instance.host, instance.port),
        "region": instance.region,
        "process": instance.process,
        "id": instance.id,
        "host": instance.worker_host,
    }


def _region(region: Region) -> Section:
    return _keys(region, without={"geo_region"})


def _keys(values: object, without: Iterable[str] = (), dropped: str = "") -> Section:
    """The fields of a resolved value under the file's names, durations and sizes as a user writes them. `dropped` is
    what the names of sizes lose: `limits` has `head_bytes`, `telemetry` has `query_memory`."""
    assert dataclasses.is_dataclass(values)
    section: Section = {}
    for field in dataclasses.fields(values):
        if field.name in without:
            continue
        value = getattr(values, field.name)
        if field.name.endswith("_s"):
            section[field.name.removesuffix("_s")] = written_seconds(value)
        elif field.name.endswith("_bytes"):
            section[field.name.removesuffix(dropped)] = None if value is None else written_size(value)
        else:
            section[field.name] = value
    return section


def _known(name: str | None, names: set[str]) -> str | None:
    return name if name in names else None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
