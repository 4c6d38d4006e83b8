"""The demo's live table, asked for in PromQL like anybody would: one row an app and region."""

from types import TracebackType
from typing import Any, Self

from flyproxy.api.client import ApiClient, ApiClientError
from flyproxy.cli.demo_traffic import Traffic
from flyproxy.cli.table import table_text

WINDOW = "15s"
RATE = f"sum by (app, region) (rate(fly_edge_http_responses_count{{%s}}[{WINDOW}]))"
QUANTILE = (
    f"histogram_quantile(%s, sum by (app, region, le) (rate(fly_edge_http_response_time_seconds_bucket[{WINDOW}])))"
)
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("rps", RATE % "", "{:.1f}"),
    ("2xx", RATE % 'status=~"2.."', "{:.1f}"),
    ("4xx", RATE % 'status=~"4.."', "{:.1f}"),
    ("5xx", RATE % 'status=~"5.."', "{:.2f}"),
    ("p50 ms", QUANTILE % "0.5" + " * 1000", "{:.0f}"),
    ("p95 ms", QUANTILE % "0.95" + " * 1000", "{:.0f}"),
    ("in B/s", f"sum by (app, region) (rate(fly_edge_data_in[{WINDOW}]))", "{:.0f}"),
    ("out B/s", f"sum by (app, region) (rate(fly_edge_data_out[{WINDOW}]))", "{:.0f}"),
)
"""(heading, query, format)"""

Key = tuple[str, str]


class Watch:
    """The table of one organization; on a terminal each text is drawn over the one before."""

    def __init__(self, base_url: str, organization: str, token: str, *, terminal: bool) -> None:
        self._client = ApiClient(base_url, organization, token)
        self._terminal = terminal
        self._lines_before = 0

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, fault, trace)

    async def text(self, traffic: Traffic) -> str:
        """The table as of now, or why there is none yet."""
        try:
            columns = [await self._column(query) for _, query, _ in COLUMNS]
        except ApiClientError as fault:
            return self._drawn(f"no numbers: {fault}\n")
        keys = sorted({key for column in columns for key in column})
        if not keys:
            return self._drawn("the first numbers come after two beats\n")
        rows = [
            [
                app,
                region,
                *(
                    self._cell(column, (app, region), form)
                    for column, (_, _, form) in zip(columns, COLUMNS, strict=True)
                ),
            ]
            for app, region in keys
        ]
        header = ["app", "region", *(heading for heading, _, _ in COLUMNS)]
        sent = f"sent so far: {sum(traffic.seen.values())}" + (f", failed: {traffic.failed}" if traffic.failed else "")
        return self._drawn(f"{table_text(header, rows)}{sent}\n")

    async def _column(self, query: str) -> dict[Key, float]:
        data: Any = (await self._client.ask("query", {"query": query})).data
        return {
            (sample["metric"].get("app", ""), sample["metric"].get("region", "")): float(sample["value"][1])
            for sample in data["result"]
        }

    @staticmethod
    def _cell(column: dict[Key, float], key: Key, form: str) -> str:
        value = column.get(key)
        return "-" if value is None or value != value else form.format(value)

    def _drawn(self, text: str) -> str:
        if not self._terminal:
            return f"\n{text}"
        up = f"\x1b[{self._lines_before}A\x1b[J" if self._lines_before else ""
        self._lines_before = text.count("\n")
        return up + text
