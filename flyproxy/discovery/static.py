"""The instances a configuration names, as one numbered generation. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from flyproxy.config.resolved import App, Instance, MetricsEndpoint, Resolved


@dataclass(frozen=True, slots=True)
class Target:
    """One `/metrics` of one instance, to be scraped."""

    app: App
    instance: Instance
    endpoint: MetricsEndpoint

    @property
    def address(self) -> str:
        """HOST:PORT to dial; IPv6 in brackets."""
        port = self.endpoint.port or self.instance.port
        host = f"[{self.instance.host}]" if ":" in self.instance.host else self.instance.host
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"http{'s' if self.endpoint.https else ''}://{self.address}{self.endpoint.path}"


@dataclass(frozen=True, slots=True)
class Generation:
    """Which apps, instances and scrape targets exist; a higher number replaces a lower one whole."""

    number: int
    apps: tuple[App, ...]
    targets: tuple[Target, ...]

    def owned(self) -> frozenset[tuple[str, str, str]]:
        """(organization, app, instance id) of every instance that exists, and ("", for the id) of every app."""
        return frozenset(
            (app.organization, app.name, id) for app in self.apps for id in ("", *(one.id for one in app.instances))
        )


def endpoints_of(app: App, instance: Instance) -> tuple[MetricsEndpoint, ...]:
    """The app's metrics endpoints that this instance has: those of its process group, and those of all groups."""
    return tuple(
        endpoint for endpoint in app.metrics if not endpoint.processes or instance.process in endpoint.processes
    )


def static_generation(number: int, resolved: Resolved) -> Generation:
    """The generation of a resolved configuration: one target for each metrics endpoint of each instance."""
    apps = resolved.edge.apps
    targets = tuple(
        Target(app, instance, endpoint)
        for app in apps
        for instance in app.instances
        for endpoint in endpoints_of(app, instance)
    )
    return Generation(number, apps, targets)
