"""docs/config.md from the models: `python -m flyproxy.config.reference` prints it, a test compares."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from flyproxy.config.document import DEPTH_MAX, FILE_BYTES_MAX, VALUES_MAX
from flyproxy.config.load import REGION_VARIABLE, SECTIONS, VARIABLE_PREFIX, model_in
from flyproxy.config.models import Configuration, Section

_HEAD = f"""# Configuration

Made by `python -m flyproxy.config.reference` from the models in `flyproxy/config/models.py`; do not edit.

`flyproxy run -c FILE` reads one YAML file; `flyproxy check FILE` names every fault in it with its line. Every key has
a default, so an empty file is a valid one; unknown keys are refused. `config/flyproxy.yaml` has every key at its
default. In its place an app's fly.toml may stand, as it is: [fly-toml.md](fly-toml.md).

- **Precedence**: flags, then the environment, then the file, then the defaults. The environment may set every key of
  {", ".join(f"`{section}`" for section in SECTIONS)} as `{VARIABLE_PREFIX}<SECTION>_<KEY>`
  (`{VARIABLE_PREFIX}EDGE_WORKERS=2`, `{VARIABLE_PREFIX}TELEMETRY_DATA_DIR=/var/lib/flyproxy`), and
  `{REGION_VARIABLE}` sets `edge.region`.
- **Variables**: `${{NAME}}` and `${{NAME:-default}}` in any value are filled in from the environment; `$${{` is a plain
  `${{`. Inside `{{...}}` a variable needs quotes: `{{port: "${{PORT}}"}}` is still a number.
- **Durations** have a unit: `500ms`, `10s`, `1h30m`, `15d`. **Sizes** are bytes: `32KiB`, `1MB`, `65536`.
- **Addresses** are `HOST:PORT`; IPv6 in brackets, `[::1]:8080`. Names are looked up when the file is loaded (and again
  at a reload). Relative folders are relative to the configuration file, without a file to where the command runs.
- **Regions**: the 36 shipped ones (`flyproxy/config/regions.json`), `regions`, and `local`, which has no position
  unless `regions` gives it one: as seen from `local`, all other regions are equally far.
- **YAML**: true and false are the only booleans (`off` is a word), numbers are decimal; anchors, aliases and `<<`
  work. A file has at most {FILE_BYTES_MAX // 1024 // 1024} MiB, {DEPTH_MAX} levels and {VALUES_MAX} values.
- **Reload** (SIGHUP, `/-/reload`): everything but `edge.workers`, `edge.loop`, `telemetry.bind`, `telemetry.data_dir`,
  `telemetry.query_workers` and `telemetry.query_memory` changes while running; a file with faults changes nothing.
- *Not built yet* means: known, refused with a sentence unless left at its default.
"""


def markdown() -> str:
    """The whole page, markdown."""
    parts = [_HEAD, "## The file\n", *_table(Configuration)]
    for name, model in _sections(Configuration, ""):
        parts += [f"\n## {name}\n", f"{(model.__doc__ or '').strip()}\n", *_table(model)]
    return "\n".join(parts) + "\n"


def _sections(model: type[Section], prefix: str) -> Iterator[tuple[str, type[Section]]]:
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None and issubclass(inner, Section):
            path = f"{prefix}{name}" + ("[]" if "list" in _kind(field) else "")
            yield path, inner
            yield from _sections(inner, f"{path}.")


def _table(model: type[Section]) -> Iterator[str]:
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_kind(field)} | {_default(field)} | {field.description} |"


def _kind(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["kind"]) if isinstance(extra, dict) else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None:
        return "`null`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, Section) or (isinstance(default, list) and default and isinstance(default[0], Section)):
        return "below"
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    return f"`{default}`" if default != "" else ""


if __name__ == "__main__":
    print(markdown(), end="")
