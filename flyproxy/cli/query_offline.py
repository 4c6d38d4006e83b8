"""A question to the store of a data directory: no front door has to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flyproxy.cli.tsdb_place import find_store, organization_to_read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flyproxy.api.client import ApiResult
    from flyproxy.api.ports import QueryRequest

READER_BYTES = 256 << 20
"""Decoded samples kept while the question is answered."""


def ask_offline(data: str, config: str | None, org: str | None, path: str, parameters: Mapping[str, str]) -> ApiResult:
    """What a front door on that directory would answer. Raises ApiClientError where it would refuse, StoreError and
    click's exceptions."""
    import orjson

    from flyproxy.api.client import ApiClientError, ApiResult
    from flyproxy.api.query_service import answer
    from flyproxy.promql.engine import Engine
    from flyproxy.promql.options import Options
    from flyproxy.tsdb.db import Reader, StoreMissingError

    place = find_store(data, config)
    telemetry = place.telemetry
    options = Options(
        mode="prometheus2" if telemetry.promql_mode == "prometheus2" else "prometheus3",
        metricsql=telemetry.metricsql,
        samples_max=telemetry.query_samples,
    )
    try:
        reader = Reader.open(place.path, head_bytes=READER_BYTES, report=_note)
    except StoreMissingError:
        raise click.ClickException(f"there is no store at {place.path}") from None
    try:
        organization = organization_to_read(place, org, reader.organizations())
        request = _request(organization, path, parameters)
        found = answer(request, Engine(options), reader.organization(organization), lambda: None)
    finally:
        reader.close()
    body = orjson.loads(found.body)
    if found.status != 200:
        raise ApiClientError(str(body["error"]), found.status, str(body["errorType"]))
    return ApiResult(body["data"], tuple(body.get("warnings") or ()), tuple(body.get("infos") or ()))


def _request(organization: str, path: str, parameters: Mapping[str, str]) -> QueryRequest:
    """The parameters were checked when the question was made."""
    from flyproxy.api.parameters import parsed_duration_ms, parsed_time_ms
    from flyproxy.api.ports import QueryRequest
    from flyproxy.clock import SystemClock

    metricsql = False if "dialect" in parameters else None
    if path == "query":
        time_ms = parsed_time_ms("--time", parameters["time"]) if "time" in parameters else SystemClock().now_ms()
        return QueryRequest("query", organization, parameters["query"], time_ms=time_ms, metricsql=metricsql)
    return QueryRequest(
        "query_range",
        organization,
        parameters["query"],
        start_ms=parsed_time_ms("--time", parameters["start"]),
        end_ms=parsed_time_ms("--time", parameters["end"]),
        step_ms=max(1, int(parsed_duration_ms("--step", parameters["step"]))),
        metricsql=metricsql,
    )


def _note(sentence: str) -> None:
    click.echo(f"note: {sentence}", err=True)
