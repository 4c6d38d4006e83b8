"""What one generation of the configuration means to a worker: its routers, its routes, its instances.

Checking is apart from building: `check` touches nothing, so a generation can be refused before anything changes;
`build` finds again the instances and recorders that were there before, with their pools and counters.
"""

from collections import Counter
from collections.abc import Iterator

from flyproxy.config import resolved
from flyproxy.edge.balancer import by_distance
from flyproxy.edge.instance import Instance
from flyproxy.edge.route import OPERATOR, UNMATCHED_APP, Doorway, Route
from flyproxy.edge.router import Router, RoutingError
from flyproxy.edge.trusted import TrustedNetworks
from flyproxy.edge.worker import Worker
from flyproxy.instrument.recorder import InstanceRecorder, Recorder

InstanceKey = tuple[str, str, int, resolved.Instance]
"""App, organization, PROXY header, and everything said of the instance: if any of it changes, it is another one."""


def check(edge: resolved.Edge) -> None:
    """Raise RoutingError for a generation that cannot be built."""
    apps = [app.name for app in edge.apps]
    for name, times in Counter(apps).items():
        if times > 1:
            raise RoutingError(f"the app {name!r} is given twice")
    if edge.default_app is not None and edge.default_app not in apps:
        raise RoutingError(f"the default app {edge.default_app!r} is not among the apps")
    for listener in edge.listeners:
        if not listener.http and listener.app not in apps:
            raise RoutingError(f"the raw TCP door {listener.host}:{listener.port} leads to no app: {listener.app!r}")
    Router([(name, app) for app in edge.apps for name in app.hostnames])


def announce(recorder: Recorder, edge: resolved.Edge) -> None:
    """Let every label set this generation will count under stand at 0."""
    for region in {listener.region for listener in edge.listeners}:
        recorder.edge(UNMATCHED_APP, OPERATOR, region, edge.host)
        for app in edge.apps:
            recorder.edge(app.name, app.organization, region, edge.host)
    for app, instance in _instances(edge):
        _recorder(recorder, app, instance)


class Generation:
    """One configuration in force."""

    def __init__(self, worker: Worker, edge: resolved.Edge, before: dict[InstanceKey, Instance]) -> None:
        """`before`: the instances of the generation before, to be kept where they are unchanged."""
        self._worker = worker
        self.edge = edge
        self.instances: dict[InstanceKey, Instance] = {}
        for app, settings in _instances(edge):
            key = _key(app, settings)
            self.instances[key] = before.get(key) or self._instance(app, settings)
        self._trusted = TrustedNetworks(edge.trusted_proxies)
        self._send_proxy = {app.name: app.send_proxy for app in edge.apps}
        self._routers: dict[str, tuple[Router[Route], Route, dict[str, Route]]] = {}

    def lead(self, way: Doorway, listener: resolved.Listener) -> None:
        """Let this door's connections find their way by this generation."""
        if way.region not in self._routers:
            self._routers[way.region] = self._router(way.region)
        way.router, way.unmatched, by_app = self._routers[way.region]
        way.hosts = {}
        way.raw = by_app[listener.app] if not listener.http and listener.app is not None else None
        way.instance_port = listener.instance_port
        way.trusted = self._trusted
        way.send_proxy = self._send_proxy.get(listener.app or "", 0)
        if listener.send_proxy is not None:
            way.send_proxy = listener.send_proxy

    def _instance(self, app: resolved.App, settings: resolved.Instance) -> Instance:
        return Instance(self._worker, settings, _recorder(self._worker.recorder, app, settings), app.send_proxy)

    def _router(self, region: str) -> tuple[Router[Route], Route, dict[str, Route]]:
        edge, recorder = self.edge, self._worker.recorder
        positions = {key: (latitude, longitude) for key, latitude, longitude in edge.region_positions}
        by_app: dict[str, Route] = {}
        for app in edge.apps:
            instances = [(settings.region, self.instances[_key(app, settings)]) for settings in app.instances]
            by_app[app.name] = Route(
                app=app.name,
                edge=recorder.edge(app.name, app.organization, region, edge.host),
                tiers=by_distance(instances, region, positions),
                access_log=app.access_log,
                host=_spoken_host(app),
                only=instances[0][1] if len(instances) == 1 else None,
            )
        unmatched = Route(
            app=UNMATCHED_APP,
            edge=recorder.edge(UNMATCHED_APP, OPERATOR, region, edge.host),
            tiers=(),
            access_log=True,
            host=b"",
        )
        names = [(name, by_app[app.name]) for app in edge.apps for name in app.hostnames]
        fallback = by_app[edge.default_app] if edge.default_app is not None else None
        return Router(names, fallback, any_host=edge.any_host), unmatched, by_app


def _key(app: resolved.App, settings: resolved.Instance) -> InstanceKey:
    return app.name, app.organization, app.send_proxy, settings


def _recorder(recorder: Recorder, app: resolved.App, instance: resolved.Instance) -> InstanceRecorder:
    return recorder.instance(app.name, app.organization, instance.region, instance.worker_host, instance.id)


def _instances(edge: resolved.Edge) -> Iterator[tuple[resolved.App, resolved.Instance]]:
    return ((app, instance) for app in edge.apps for instance in app.instances)


def _spoken_host(app: resolved.App) -> bytes:
    exact = [name for name in app.hostnames if not name.startswith("*")]
    return (exact[0] if exact else app.name).encode("ascii", "replace")
