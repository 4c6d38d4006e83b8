"""Models to the plain values that processes get: every default filled in, every name looked up."""

from __future__ import annotations

import hashlib
import os

from flyproxy.config import models, resolved
from flyproxy.config.faults import ConfigError, Fault, Path
from flyproxy.config.fields import WORKERS_MAX
from flyproxy.config.load import Loaded
from flyproxy.config.machine import Machine, four_digits, this_machine
from flyproxy.config.names import Address, parse_address
from flyproxy.config.regions import shipped_regions
from flyproxy.config.resolved import SEND_PROXY


def resolve(loaded: Loaded, machine: Machine | None = None) -> resolved.Resolved:
    """The values of one configuration on one machine (this one). Raises ConfigError for names nobody knows.

    Looking a name up waits for the network; a caller with an event loop does this on a thread.
    """
    return _Resolving(loaded, machine or this_machine()).whole()


def instance_id(app: str, address: str) -> str:
    """The 14 hex digits of an instance that was given none: the same as long as app and address are."""
    return hashlib.sha256(f"flyproxy instance\0{app}\0{address}".encode()).hexdigest()[:14]


class _Resolving:
    """One configuration on its way; faults are gathered and raised together."""

    def __init__(self, loaded: Loaded, machine: Machine) -> None:
        self._loaded = loaded
        self._configuration = loaded.configuration
        self._machine = machine
        self._host = loaded.configuration.edge.host or machine.host
        self._known: dict[str, str | OSError] = {}
        self._faults: list[Fault] = []

    def whole(self) -> resolved.Resolved:
        edge, telemetry = self._edge(), self._telemetry()
        if self._faults:
            raise ConfigError(self._faults)
        workers = self._configuration.edge.workers
        return resolved.Resolved(
            workers=min(self._machine.cpus, WORKERS_MAX) if workers is None else workers,
            edge=edge,
            telemetry=telemetry,
            source=self._loaded.document.name if self._loaded.document.lines else "",
        )

    def _edge(self) -> resolved.Edge:
        settings = self._configuration.edge
        return resolved.Edge(
            region=settings.region,
            host=self._host,
            loop=settings.loop if self._machine.uvloop else "asyncio",
            listeners=tuple(
                self._listener(listener, index) for index, listener in enumerate(self._configuration.listeners)
            ),
            apps=tuple(self._app(app, index) for index, app in enumerate(self._configuration.apps)),
            default_app=settings.default_app,
            any_host=self._loaded.any_host,
            limits=self._limits(),
            timeouts=self._timeouts(),
            region_positions=tuple((region.key, region.latitude, region.longitude) for region in self._regions()),
            access_log=self._access_log(settings.access_log),
            trusted_proxies=tuple(self._configuration.trusted_proxies),
        )

    def _listener(self, listener: models.Listener, index: int) -> resolved.Listener:
        address = self._looked_up(parse_address(listener.bind, port_zero=True), ("listeners", index, "bind"))
        return resolved.Listener(
            host=address.host,
            port=address.port,
            http="http" in listener.handlers,
            proxy_proto="proxy_proto" in listener.handlers,
            send_proxy=None if listener.send_proxy is None else SEND_PROXY.index(listener.send_proxy),
            region=listener.region or self._configuration.edge.region,
            app=listener.app,
            instance_port=listener.instance_port,
        )

    def _app(self, app: models.App, index: int) -> resolved.App:
        return resolved.App(
            name=app.name,
            organization=app.organization or self._configuration.organizations[0].slug,
            hostnames=tuple(app.hostnames),
            instances=tuple(
                self._instance(app, instance, ("apps", index, "instances", number, "address"))
                for number, instance in enumerate(app.instances)
            ),
            metrics=tuple(
                resolved.MetricsEndpoint(entry.port, entry.path, entry.https, tuple(entry.processes))
                for entry in app.metrics or ()
            ),
            access_log=app.access_log,
            concurrency=resolved.Concurrency(
                app.concurrency.type, app.concurrency.soft_limit, app.concurrency.hard_limit
            ),
            send_proxy=SEND_PROXY.index(app.send_proxy),
        )

    def _instance(self, app: models.App, instance: models.Instance, path: Path) -> resolved.Instance:
        address = self._looked_up(parse_address(instance.address), path)
        return resolved.Instance(
            id=instance.id or instance_id(app.name, instance.address),
            host=address.host,
            port=address.port,
            region=instance.region or self._configuration.edge.region,
            worker_host=instance.host or self._worker_host(address),
            process=instance.process,
        )

    def _worker_host(self, address: Address) -> str:
        if not address.is_ip or self._machine.is_own(address.host):
            return self._host
        return four_digits(address.host)

    def _looked_up(self, address: Address, path: Path) -> Address:
        """The address with an IP for its host; a fault is noted where there is none."""
        if address.is_ip:
            return address
        if address.host not in self._known:
            try:
                self._known[address.host] = self._machine.look_up(address.host)
            except OSError as error:
                self._known[address.host] = error
        found = self._known[address.host]
        if isinstance(found, OSError):
            reason = (found.strerror or str(found)).lower()
            self._faults.append(self._loaded.document.fault(path, f"cannot look up '{address.host}': {reason}"))
            return address
        return Address(found, address.port)

    def _access_log(self, written: str) -> str:
        if written == "auto":
            return "console" if self._machine.terminal else "json"
        return written

    def _limits(self) -> resolved.Limits:
        limits = self._configuration.limits
        return resolved.Limits(
            head_bytes=limits.head_bytes,
            line_bytes=limits.line_bytes,
            header_count=limits.header_count,
            buffer_bytes=limits.buffer_bytes,
            body_bytes=limits.body_bytes,
            connections=limits.connections,
        )

    def _timeouts(self) -> resolved.Timeouts:
        timeouts = self._configuration.timeouts
        return resolved.Timeouts(
            head_s=timeouts.head,
            body_s=timeouts.body,
            idle_s=timeouts.idle,
            write_s=timeouts.write,
            connect_s=timeouts.connect,
            response_s=timeouts.response,
            drain_s=timeouts.drain,
        )

    def _scrape_limits(self) -> resolved.ScrapeLimits:
        limits = self._configuration.scrape_limits
        return resolved.ScrapeLimits(
            body_bytes=limits.body_bytes,
            samples=limits.samples,
            labels=limits.labels,
            label_name_characters=limits.label_name_characters,
            label_value_characters=limits.label_value_characters,
            lines=limits.lines,
            series=limits.series,
        )

    def _regions(self) -> tuple[resolved.Region, ...]:
        own = (
            resolved.Region(region.key, region.latitude, region.longitude, region.name or region.key, "")
            for region in self._configuration.regions
        )
        return (*shipped_regions(), *own)

    def _telemetry(self) -> resolved.Telemetry:
        settings = self._configuration.telemetry
        address = self._looked_up(parse_address(settings.bind, port_zero=True), ("telemetry", "bind"))
        return resolved.Telemetry(
            host=address.host,
            port=address.port,
            data_dir=os.path.join(self._loaded.folder, os.path.expanduser(settings.data_dir)),
            retention_s=settings.retention,
            retention_size_bytes=settings.retention_size,
            own_interval_s=settings.own_interval,
            scrape_interval_s=settings.scrape_interval,
            query_workers=settings.query_workers,
            query_timeout_s=settings.query_timeout,
            query_memory_bytes=settings.query_memory,
            query_samples=settings.query_samples,
            query_concurrency=settings.query_concurrency,
            first_zero=settings.first_zero,
            promql_mode=self._configuration.promql.mode,
            metricsql=self._configuration.promql.metricsql,
            organizations=tuple(organization.slug for organization in self._configuration.organizations),
            regions=self._regions(),
            scrape_limits=self._scrape_limits(),
            instance_metrics=settings.instance_metrics,
        )
