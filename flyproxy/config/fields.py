"""The kinds of values a key can have: what is accepted, what it becomes, and the sentence for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from flyproxy.config.faults import did_you_mean
from flyproxy.config.names import (
    BadNameError,
    parse_address,
    parse_hex,
    parse_hostname,
    parse_metrics_path,
    parse_network,
    parse_process_group,
    parse_slug,
)
from flyproxy.config.quantities import BadQuantityError, parse_seconds, parse_size, written_seconds, written_size
from flyproxy.config.scalars import as_text, got

OURS = "flyproxy"
"""The error type of our own sentences, among pydantic's."""

BUILT_HANDLERS = ("proxy_proto", "http")
LATER_HANDLERS = ("tls", "pg_tls")
WORKERS_MAX = 128

_T = TypeVar("_T")


def wrong(sentence: str) -> PydanticCustomError:
    """A fault with our own sentence."""
    return PydanticCustomError(OURS, "{sentence}", {"sentence": sentence})


def setting(default: Any, kind: str, description: str) -> Any:
    """A key with its default as a user would write it, its kind of value, and what it does."""
    return Field(default=default, validate_default=True, description=description, json_schema_extra={"kind": kind})


def required(kind: str, description: str) -> Any:
    """A key that must be given."""
    return Field(description=description, json_schema_extra={"kind": kind})


def keys_below(default: Callable[[], Any], kind: str, description: str) -> Any:
    """A key that holds a mapping or a list of its own."""
    return Field(default_factory=default, description=description, json_schema_extra={"kind": kind})


def _saying(parse: Callable[[Any], _T]) -> Callable[[Any], _T]:
    def parsed(value: Any) -> _T:
        try:
            return parse(value)
        except (BadNameError, BadQuantityError) as error:
            raise wrong(str(error)) from None

    return parsed


def _text(value: Any) -> Any:
    text = as_text(value)
    return value if text is None else text


def _within(parse: Callable[[Any], Any], low: Any, high: Any, written: Callable[[Any], str]) -> Callable[[Any], Any]:
    parsed = _saying(parse)

    def bounded(value: Any) -> Any:
        # Through `float | None`, pydantic never hands us None; a default is validated like a written value.
        result = parsed(value)
        if not low <= result <= high:
            raise wrong(f"wanted {written(low)} to {written(high)}, got {as_text(value) or written(result)}")
        return result

    return bounded


def size(low: int, high: int) -> BeforeValidator:
    """A size within bounds, bytes."""
    return BeforeValidator(_within(parse_size, low, high, written_size))


def seconds(low: float, high: float) -> BeforeValidator:
    """A duration within bounds, seconds."""
    return BeforeValidator(_within(parse_seconds, low, high, written_seconds))


def between(low: int | float, high: int | float) -> AfterValidator:
    """A number within bounds."""

    def bounded(value: Any) -> Any:
        if not low <= value <= high:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise wrong(f"wanted {low} to {high}, got {shown}")
        return value

    return AfterValidator(bounded)


def one_of(*words: str) -> AfterValidator:
    """One of a few words."""

    def chosen(value: str) -> str:
        if value not in words:
            wanted = f"'{words[0]}'" if len(words) == 1 else " or ".join((", ".join(words[:-1]), words[-1]))
            raise wrong(f"wanted {wanted}, got {got(value)}{did_you_mean(value, words)}")
        return value

    return AfterValidator(chosen)


def not_built(default: Any, what: str) -> PlainValidator:
    """A key of the contract that may only be left at its default for now."""

    def refused(value: Any) -> Any:
        if value is None or value == default:
            return default
        raise wrong(f"not built yet: {what}")

    return PlainValidator(refused)


def _workers(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(f"wanted 'auto' or a whole number, got {got(value)}")
    if not 0 <= value <= WORKERS_MAX:
        raise wrong(f"wanted 'auto' or 0 to {WORKERS_MAX}, got {value}")
    return int(value)


def _handler(value: str) -> str:
    if value in LATER_HANDLERS:
        raise wrong(
            f"not built yet: the handler '{value}'; built are [http] and [] (raw TCP), after proxy_proto or not"
        )
    if value not in BUILT_HANDLERS:
        raise wrong(f"{got(value)} is no handler{did_you_mean(value, (*BUILT_HANDLERS, *LATER_HANDLERS))}")
    return value


def _filled(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise wrong("wanted a text, got an empty one")
    return value


def _one_or_list(value: Any) -> Any:
    if value is None or isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise wrong(f"wanted a mapping, or a list of them, got {got(value)}")
    return [value]


Text = Annotated[str, BeforeValidator(_text)]
FilledText = Annotated[Text, AfterValidator(_filled)]
Workers = Annotated[int | None, PlainValidator(_workers)]
Handler = Annotated[Text, AfterValidator(_handler)]
Hex4 = Annotated[Text, AfterValidator(_saying(lambda text: parse_hex(text, 4, "host")))]
Hex14 = Annotated[Text, AfterValidator(_saying(lambda text: parse_hex(text, 14, "instance id")))]
AppName = Annotated[Text, AfterValidator(_saying(lambda text: parse_slug(text, "app's name")))]
OrganizationSlug = Annotated[Text, AfterValidator(_saying(lambda text: parse_slug(text, "organization's slug")))]
RegionKey = Annotated[Text, AfterValidator(_saying(lambda text: parse_slug(text, "region")))]
Hostname = Annotated[Text, AfterValidator(_saying(parse_hostname))]
BindAddress = Annotated[Text, AfterValidator(_saying(lambda text: str(parse_address(text, port_zero=True))))]
InstanceAddress = Annotated[Text, AfterValidator(_saying(lambda text: str(parse_address(text))))]
Network = Annotated[Text, AfterValidator(_saying(parse_network))]
ProcessGroup = Annotated[Text, AfterValidator(_saying(parse_process_group))]
MetricsPath = Annotated[Text, AfterValidator(_saying(parse_metrics_path))]
OneOrList = BeforeValidator(_one_or_list)
