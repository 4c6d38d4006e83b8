"""A file, the environment and flags to models; every fault at once, each with its place.

Precedence: flags, then `FLYPROXY_<SECTION>_<KEY>` and `FLY_REGION`, then the file, then the models' defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from flyproxy.config.checks import check_document, warn_document
from flyproxy.config.document import Document, read_document
from flyproxy.config.faults import ConfigError, Fault, Path, did_you_mean, in_order, one_of_these
from flyproxy.config.fields import OURS
from flyproxy.config.fly_fill import fill_apps
from flyproxy.config.fly_front_door import front_door
from flyproxy.config.fly_toml import read_fly_toml
from flyproxy.config.models import Configuration
from flyproxy.config.names import BadNameError, parse_address
from flyproxy.config.scalars import got, plain_value

VARIABLE_PREFIX = "FLYPROXY_"
REGION_VARIABLE = "FLY_REGION"
SECTIONS = ("edge", "telemetry", "limits", "timeouts", "scrape_limits", "promql")
"""The sections whose keys the environment may set."""

TO_APP = "app"
"""The name of the app that `--to` makes."""

_WANTED = {
    "int_type": "wanted a whole number",
    "int_parsing_size": "wanted a smaller number",
    "float_type": "wanted a number",
    "string_type": "wanted a text",
    "bool_type": "wanted true or false",
    "list_type": "wanted a list",
    "model_type": "wanted a mapping",
    "dict_type": "wanted a mapping",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration without faults, and what `resolve` needs to finish it."""

    configuration: Configuration
    document: Document
    """Where every value was written, for faults that show only later (a name nobody knows)."""
    folder: str
    """What relative paths are relative to; absolute."""
    any_host: bool = False
    """Every host goes to `edge.default_app` (`--to`, a fly.toml)."""
    warnings: tuple[Fault, ...] = ()
    """What is not done as written, in the order of the files."""


def load_file(
    path: str, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """The configuration of a file. `overrides` are flags: `{"edge.region": "fra", "listeners": [...]}`.

    Raises ConfigError with every fault.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([Fault(path, None, None, "", f"cannot read the configuration: {reason}")]) from None
    folder = os.path.dirname(os.path.abspath(path))
    return load_bytes(raw, path, folder=folder, overrides=overrides, environ=environ)


def load_bytes(
    raw: bytes,
    name: str,
    *,
    folder: str | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """The same, of a file's bytes; `name` is what faults call it. A name that ends in `.toml` is a fly.toml's."""
    environ = os.environ if environ is None else environ
    folder = folder or os.getcwd()
    if name.endswith(".toml"):
        return _finish(front_door(read_fly_toml(raw, name)), folder, overrides or {}, environ, any_host=True)
    document = read_document(raw, name, environ)
    fill_apps(document, folder)
    return _finish(document, folder, overrides or {}, environ)


def from_flags(
    to: Sequence[str] = (),
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """A configuration without a file: `--to HOST:PORT` once for each instance of one app that gets every host.

    A bare port means this machine. Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    document = Document("flags")
    document.tree = {}
    addresses = []
    for index, text in enumerate(to):
        address = f"127.0.0.1:{text}" if text.isascii() and text.isdigit() else text
        document.origins[("apps", 0, "instances", index, "address")] = "--to"
        try:
            addresses.append(str(parse_address(address)))
        except BadNameError as error:
            document.faults.append(Fault("--to", None, None, "", str(error)))
    if to:
        instances = [{"address": address} for address in addresses]
        document.tree = {"edge": {"default_app": TO_APP}, "apps": [{"name": TO_APP, "instances": instances}]}
    return _finish(document, os.getcwd(), overrides or {}, environ, any_host=bool(to))


def _finish(
    document: Document,
    folder: str,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    any_host: bool = False,
) -> Loaded:
    if document.tree is None:
        document.tree = {}
    if isinstance(document.tree, dict):
        _apply_environment(document, document.tree, environ)
        for dotted, value in overrides.items():
            path = tuple(dotted.split("."))
            _put(document, document.tree, path, plain_value(value) if isinstance(value, str) else value, "flags")
    try:
        configuration = Configuration.model_validate(document.tree)
        faults = []
    except ValidationError as error:
        faults = [_translated(dict(one), document) for one in error.errors(include_url=False)]
    faults = _first_of_each([*document.faults, *faults, *check_document(document)])
    if faults:
        raise ConfigError(faults)
    warn_document(document)
    return Loaded(configuration, document, folder, any_host, tuple(in_order(document.warnings)))


def _apply_environment(document: Document, tree: dict[str, object], environ: Mapping[str, str]) -> None:
    if environ.get(REGION_VARIABLE):
        _put(document, tree, ("edge", "region"), environ[REGION_VARIABLE], REGION_VARIABLE)
    for name, text in environ.items():
        rest = name.removeprefix(VARIABLE_PREFIX).lower()
        section = next((known for known in SECTIONS if rest.startswith(f"{known}_")), None)
        if not name.startswith(VARIABLE_PREFIX) or section is None:
            continue  # FLYPROXY_TOKEN and the like belong to others
        key = rest.removeprefix(f"{section}_")
        keys = list(_model_at((section,)).model_fields)
        if key in keys:
            _put(document, tree, (section, key), plain_value(text), name)
        else:
            hint = did_you_mean(name, [f"{VARIABLE_PREFIX}{section}_{known}".upper() for known in keys])
            document.faults.append(Fault(name, None, None, "", f"no setting is called {section}.{key}{hint}"))


def _put(document: Document, tree: dict[str, object], path: Path, value: object, origin: str) -> None:
    inner: Any = tree
    for step in path[:-1]:
        if inner.get(step) is None:
            inner[step] = {}
        inner = inner[step]
        if not isinstance(inner, dict):
            return  # the models have a sentence for a section that is no mapping
    inner[path[-1]] = value
    document.origins[path] = origin


def _first_of_each(faults: list[Fault]) -> list[Fault]:
    """One fault for one key: a value that could not be read is not also a wrong one."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for fault in faults:
        if not fault.path or (fault.file, fault.path) not in seen:
            kept.append(fault)
        seen.add((fault.file, fault.path))
    return kept


def _translated(error: dict[str, Any], document: Document) -> Fault:
    """A pydantic error as ours."""
    kind, location = error["type"], tuple(error["loc"])
    path = _as_written(location, document.tree)
    if kind == OURS:
        return document.fault(path, error["ctx"]["sentence"])
    if kind == "extra_forbidden":
        known = list(_model_at(location[:-1]).model_fields)
        word = str(location[-1])
        return document.fault(path, f"unknown key {got(word)}{one_of_these(word, known)}", at_key=True)
    if kind == "missing":
        return document.fault(path, f"missing key '{location[-1]}'")
    wanted = _WANTED.get(kind)
    if wanted is None:
        return document.fault(path, str(error["msg"]))
    return document.fault(path, f"{wanted}, got {got(error['input'])}")


def _as_written(location: Path, tree: object) -> Path:
    """pydantic's way to a value as the file has it: one mapping where a list may stand (`metrics`) has no index."""
    path: list[str | int] = []
    inner: Any = tree
    for step in location:
        if isinstance(step, int) and isinstance(inner, dict):
            continue
        path.append(step)
        try:
            inner = inner[step]
        except (KeyError, IndexError, TypeError):
            inner = None
    return tuple(path)


def _model_at(location: Path) -> type[BaseModel]:
    """The model that describes the mapping at a path."""
    model: type[BaseModel] = Configuration
    for step in location:
        if isinstance(step, str):
            model = model_in(model.model_fields[step].annotation) or model
    return model


def model_in(annotation: object) -> type[BaseModel] | None:
    """The model inside a type annotation: of `list[App]`, App; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = model_in(part)
        if found is not None:
            return found
    return None
