"""`apps[].fly_toml` in a YAML file: what an app does not say itself, its fly.toml says."""

from __future__ import annotations

import os
from typing import Any

from flyproxy.config.document import Document
from flyproxy.config.faults import ConfigError, Path
from flyproxy.config.fly_front_door import concurrency_of, metrics_of, send_proxy_of
from flyproxy.config.fly_toml import FlyToml, read_fly_toml
from flyproxy.config.names import with_port
from flyproxy.config.scalars import as_text

FILES_MAX = 1000
"""fly.toml files of one configuration."""


def fill_apps(document: Document, folder: str) -> None:
    """Fill the apps that name a fly.toml, in the document's tree; faults and warnings go into the document.

    `folder` is what the paths are relative to.
    """
    apps = document.tree.get("apps") if isinstance(document.tree, dict) else None
    files: dict[str, FlyToml | None] = {}
    for index, app in enumerate(apps if isinstance(apps, list) else []):
        path = as_text(app.get("fly_toml")) if isinstance(app, dict) else None
        if path is None:
            continue
        place: Path = ("apps", index, "fly_toml")
        if path not in files:
            files[path] = _read(document, place, folder, path) if len(files) < FILES_MAX else None
            if len(files) > FILES_MAX:
                sentence = f"more than {FILES_MAX} files"
                document.faults.append(document.fault(place, sentence))
                return
        fly = files[path]
        if fly is not None:
            _fill(app, fly)
    for fly in files.values():
        if fly is not None:  # two apps may share a file
            document.warnings += dict.fromkeys(fly.document.warnings)


def _read(document: Document, place: Path, folder: str, path: str) -> FlyToml | None:
    where = os.path.expanduser(path)
    try:
        with open(os.path.join(folder, where), "rb") as file:
            raw = file.read()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        document.faults.append(document.fault(place, f"cannot read '{path}': {reason}"))
        return None
    try:
        return read_fly_toml(raw, os.path.join(os.path.dirname(document.name), where))
    except ConfigError as error:
        document.faults += error.faults
        return None


def _fill(app: dict[str, Any], fly: FlyToml) -> None:
    """What is written in the app stays. Values of the wrong kind stay too: the models have a sentence for them."""
    listed = app.get("instances")
    instances = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    for instance in instances:
        instance.setdefault("process", fly.process)
        address = instance.get("address")
        if fly.main is not None and isinstance(address, str):
            instance["address"] = with_port(address, fly.main.internal_port)
    if "metrics" not in app:
        groups = {group for instance in instances if (group := as_text(instance["process"])) is not None}
        app["metrics"] = metrics_of(fly, groups) or None
    app.setdefault("send_proxy", send_proxy_of(fly))
    _fill_concurrency(app, fly)


def _fill_concurrency(app: dict[str, Any], fly: FlyToml) -> None:
    """Key by key: `{hard_limit: 10}` keeps the file's type. A soft limit that only the default gives bends."""
    written = app.get("concurrency")
    if written is None:
        app["concurrency"] = concurrency_of(fly)
    elif isinstance(written, dict):
        merged = {**concurrency_of(fly), **written}
        soft, hard = merged["soft_limit"], merged["hard_limit"]
        if "soft_limit" not in written and isinstance(soft, int) and isinstance(hard, int):
            merged["soft_limit"] = min(soft, hard)
        app["concurrency"] = merged
