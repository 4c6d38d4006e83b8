"""`flyproxy query`: ask a running proxy in PromQL, or a data directory."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flyproxy.api.client import ApiResult
    from flyproxy.cli.place import Place

TOKEN_LIFETIME_S = 60.0
"""Of the token that is minted for one question and revoked after it."""
_PARSE_ERROR = re.compile(r'(?:invalid parameter "query": )?(\d+):(\d+): parse error: (.*)', re.DOTALL)


@click.command()
@click.argument("expression")
@click.option("--time", "time", metavar="T", help="The moment (Unix seconds or RFC 3339), or the range's end. Now.")
@click.option("--range", "window", metavar="DURATION", help="Every step of so long until then, as 1h.")
@click.option("--step", metavar="DURATION", help="Between two points of a range (default 15s).")
@click.option("-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--strict", is_flag=True, help="Plain PromQL, without MetricsQL's additions.")
@click.option("--org", metavar="SLUG", help="The organization (default: the configuration's first).")
@click.option("--token", metavar="TOKEN", envvar="FLYPROXY_TOKEN", help="Default: one is minted for this question.")
@click.option("--url", metavar="URL", help="The proxy's telemetry address (default: as configured). Needs a token.")
@click.option("--data", metavar="DIR", help="Ask the store of a data directory; no proxy has to run, and no token.")
@click.option("-c", "--config", metavar="FILE", help="The proxy's configuration.")
def query(
    expression: str,
    time: str | None,
    window: str | None,
    step: str | None,
    output: str,
    strict: bool,
    org: str | None,
    token: str | None,
    url: str | None,
    data: str | None,
    config: str | None,
) -> None:
    """Ask a running proxy, or the store of one that is not.

    \b
    Examples:
      flyproxy query 'sum by (status) (rate(fly_edge_http_responses_count[5m]))'
      flyproxy query 'sum by (region) (increase(fly_edge_data_out))' --range 1h --step 1m -o csv
      flyproxy query 'topk(5, fly_app_concurrency)' --data data --time 2026-11-22T12:00:00Z

    On the proxy's own machine no token is needed by whoever may write its data directory.
    """
    from flyproxy.api.client import ApiClientError

    if step and not window:
        raise click.UsageError("--step is for --range")
    if url and not token:
        raise click.UsageError("--url needs --token (or FLYPROXY_TOKEN)")
    if url and data:
        raise click.UsageError("--data asks a directory, --url a proxy; give one of them")
    path, parameters = _question(expression, time, window, step, strict)
    try:
        if data:
            from flyproxy.cli.query_offline import ask_offline

            result = ask_offline(data, config, org, path, parameters)
        else:
            result = _asked_a_proxy(url, token, config, org, path, parameters)
    except ApiClientError as fault:
        raise click.ClickException(_said(str(fault), expression)) from None
    for note in (*result.warnings, *result.infos):
        click.echo(f"note: {note}", err=True)
    try:
        text = formatted(result, output)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise click.ClickException("the answer is not one to a query; is --url a Prometheus API?") from None
    click.echo(text, nl=False)


def _asked_a_proxy(
    url: str | None, token: str | None, config: str | None, org: str | None, path: str, parameters: dict[str, str]
) -> ApiResult:
    from flyproxy.cli.place import chosen_organization, find_place

    place = find_place(config)
    organization = org if url and org else chosen_organization(place, org)
    with _some_token(place, organization, token) as mine:
        return asyncio.run(_ask(url or place.base_url, organization, mine, path, parameters))


def _question(
    expression: str, time: str | None, window: str | None, step: str | None, strict: bool
) -> tuple[str, dict[str, str]]:
    """The endpoint and its parameters."""
    from flyproxy.api.faults import ApiFault
    from flyproxy.api.parameters import parsed_duration_ms, parsed_time_ms
    from flyproxy.clock import SystemClock

    parameters = {"query": expression}
    if strict:
        parameters["dialect"] = "promql"
    try:
        if window is None:
            if time:
                parsed_time_ms("--time", time)
                parameters["time"] = time
            return "query", parameters
        end_ms = parsed_time_ms("--time", time) if time else SystemClock().now_ms()
        start_ms = end_ms - int(parsed_duration_ms("--range", window))
        parsed_duration_ms("--step", step or "15s")
    except ApiFault as fault:
        raise click.UsageError(str(fault).removeprefix("invalid parameter ")) from None
    return "query_range", parameters | {
        "start": f"{start_ms / 1000:.3f}",
        "end": f"{end_ms / 1000:.3f}",
        "step": step or "15s",
    }


@contextmanager
def _some_token(place: Place, organization: str, given: str | None) -> Iterator[str]:
    """The given token, else one that lives only as long as the question."""
    from flyproxy.api.tokens import Scope, TokenFile, TokenFileError
    from flyproxy.clock import SystemClock

    if given:
        yield given
        return
    tokens = TokenFile(place.tokens_path, SystemClock())
    if not place.data_dir.is_dir():
        raise click.ClickException(
            f"no token was given and {place.data_dir} is not there to mint one; use -c FILE, or --token"
        )
    scope = Scope.OPERATOR if organization == "_operator" else Scope.READ
    try:
        mine = tokens.mint(organization, scope, lifetime_s=TOKEN_LIFETIME_S)
    except TokenFileError as fault:
        raise click.ClickException(f"no token was given and none can be minted: {fault}") from None
    try:
        yield mine
    finally:
        tokens.revoke(mine)


async def _ask(base_url: str, organization: str, token: str, path: str, parameters: dict[str, str]) -> ApiResult:
    from flyproxy.api.client import ApiClient

    async with ApiClient(base_url, organization, token) as client:
        return await client.ask(path, parameters)


def _said(message: str, expression: str) -> str:
    """The server's sentence; a parse error with the place in the expression below it."""
    found = _PARSE_ERROR.fullmatch(message)
    if found is None:
        return message
    line, column, sentence = int(found[1]), int(found[2]), found[3]
    lines = expression.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    return f"{sentence}\n       {shown}\n       {' ' * (column - 1)}^"


def formatted(result: ApiResult, output: str) -> str:
    """The answer as a table, JSON or CSV, with its last newline. Tables show times in UTC, CSV in Unix seconds."""
    if output == "json":
        import orjson

        return orjson.dumps(result.data, option=orjson.OPT_INDENT_2).decode() + "\n"
    header, rows = _rows(result.data)
    if output == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        return out.getvalue()
    from flyproxy.cli.table import table_text

    if not rows:
        return "no data\n"
    when = header.index("time")
    for row in rows:
        row[when] = _moment(row[when])
    if len({row[when] for row in rows}) == 1:  # an instant: the same time on every row says nothing
        header, rows = _without(header, when), [_without(row, when) for row in rows]
    return table_text(header, rows)


def _without(row: list[str], column: int) -> list[str]:
    return row[:column] + row[column + 1 :]


def _rows(data: Any) -> tuple[list[str], list[list[str]]]:
    """Columns: the metric's name and labels, the time, the value; a row for each point."""
    result = data["result"]
    if data["resultType"] in ("scalar", "string"):
        return ["time", "value"], [[_plain(result[0]), result[1]]]
    names = sorted({name for series in result for name in series["metric"]})
    rows = [
        [*(series["metric"].get(name, "") for name in names), _plain(time), value]
        for series in result
        for time, value in series.get("values") or [series["value"]]
    ]
    return [*("metric" if name == "__name__" else name for name in names), "time", "value"], rows


def _plain(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _moment(seconds: str) -> str:
    try:
        moment = datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return seconds
    timespec = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")
