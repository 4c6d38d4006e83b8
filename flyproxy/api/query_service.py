"""One question answered: what a query worker calls. No HTTP server, no loop; status and JSON bytes come back.

Whatever goes wrong with the question becomes an answer here; only the deadline's and the store's own failures that
mean something to the process (a lost database, no memory) are left to it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from flyproxy.api.faults import error_json
from flyproxy.api.federate import CONTENT_TYPES, federated
from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.api.render import data_json, result_json, series_json
from flyproxy.api.tsdb_status import HEAD_MS, tsdb_status
from flyproxy.promql.ast_json import ast_json
from flyproxy.promql.engine import Engine
from flyproxy.promql.errors import BadQueryRange, QueryCanceled, QueryError, QueryTimeout, TooManySamples
from flyproxy.promql.format import format_expression
from flyproxy.promql.latest import latest
from flyproxy.promql.nodes import Node
from flyproxy.promql.parse import parse, parse_selector
from flyproxy.promql.parse_error import ParseError
from flyproxy.series.frame import Frame, Storage
from flyproxy.series.labels import Labels
from flyproxy.series.matchers import BadPatternError, Matcher

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""Five million points; the API holds an answer in memory until it is read."""
TRUNCATED = "results truncated due to limit"
MatcherSets = Sequence[Sequence[Matcher]]
Checkpoint = Callable[[], None]


class OrganizationView(Storage, Protocol):
    """One organization's samples and their labels, and nothing else."""

    def label_names(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        """Sorted; None: of all series."""
        ...

    def label_values(self, name: str, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        """Sorted."""
        ...

    def series(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[Labels]:
        """Sorted, each once; None: all series."""
        ...


def answer(request: QueryRequest, engine: Engine, view: OrganizationView, checkpoint: Checkpoint) -> QueryAnswer:
    """The answer to any question, also to a wrong one. `checkpoint` may raise QueryTimeout or QueryCanceled."""
    found = _answer(request, engine, view, checkpoint)
    if len(found.body) <= ANSWER_BYTES_MAX:
        return found
    sentence = f"the answer has {len(found.body):,} bytes, at most {ANSWER_BYTES_MAX:,} are sent"
    return refusal(422, "execution", f"{sentence}; ask for fewer series or steps", "api_answer_bytes")


def _answer(request: QueryRequest, engine: Engine, view: OrganizationView, checkpoint: Checkpoint) -> QueryAnswer:
    try:
        if request.kind == "federate":
            return QueryAnswer(200, _federated(request, engine, view, checkpoint), CONTENT_TYPES[request.utf8_names])
        return QueryAnswer(200, _body(request, engine, view, checkpoint))
    except (ParseError, BadPatternError) as fault:
        parameter = "query" if request.expression else "match[]"
        return refusal(400, "bad_data", f'invalid parameter "{parameter}": {fault}')
    except _BadSelectorError as fault:
        return refusal(400, "bad_data", f'invalid parameter "match[]": {fault}')
    except BadQueryRange as fault:
        return refusal(400, "bad_data", str(fault))
    except QueryTimeout as fault:
        return refusal(503, "timeout", str(fault) or "query timed out in expression evaluation")
    except QueryCanceled as fault:
        return refusal(503, "canceled", str(fault) or "query was canceled in expression evaluation")
    except TooManySamples as fault:
        return refusal(422, "execution", str(fault), "query_samples")
    except QueryError as fault:
        return refusal(422, "execution", str(fault))
    except RecursionError:
        return refusal(422, "execution", "the expression is nested too deeply")


class _BadSelectorError(Exception):
    """A match[] that is not a selector."""


def _body(request: QueryRequest, engine: Engine, view: OrganizationView, checkpoint: Checkpoint) -> bytes:
    start_ms, end_ms, limit = request.start_ms, request.end_ms, request.limit
    match request.kind:
        case "query":
            result = engine.query(
                request.expression, view, request.time_ms, checkpoint=checkpoint, metricsql=request.metricsql
            )
            return result_json(result, ranged=False, limit=limit)
        case "query_range":
            result = engine.query_range(
                request.expression,
                view,
                start_ms,
                end_ms,
                request.step_ms,
                checkpoint=checkpoint,
                metricsql=request.metricsql,
            )
            return result_json(result, ranged=True, limit=limit)
        case "series":
            series = view.series(_matcher_sets(request.matches), start_ms, end_ms)
            return series_json(series[: limit or None], _cut(series, limit))
        case "labels":
            names = view.label_names(_matcher_sets(request.matches) or None, start_ms, end_ms)
            return data_json(names[: limit or None], _cut(names, limit))
        case "label_values":
            sets = _matcher_sets(request.matches) or None
            values = view.label_values(request.label, sets, start_ms, end_ms)
            return data_json(values[: limit or None], _cut(values, limit))
        case "status_tsdb":
            since_ms = request.time_ms - HEAD_MS
            series = view.series(None, since_ms, request.time_ms)
            return data_json(tsdb_status(series, since_ms, request.time_ms, limit, checkpoint))
        case "query_exemplars":
            _parsed(request, engine)
            return data_json([])
        case "format_query":
            return data_json(format_expression(_parsed(request, engine)))
        case "parse_query":
            return data_json(ast_json(_parsed(request, engine)))
        case "check_matches":
            _matcher_sets(request.matches)
            return data_json([])
        case "federate":
            raise AssertionError("not JSON")


def _parsed(request: QueryRequest, engine: Engine) -> Node:
    metricsql = engine.options.metricsql if request.metricsql is None else request.metricsql
    return parse(request.expression, metricsql=metricsql)


def _federated(request: QueryRequest, engine: Engine, view: OrganizationView, checkpoint: Checkpoint) -> bytes:
    options = engine.options
    storage = _Counted(view, options.samples_max)
    sets = _matcher_sets(request.matches)
    samples = latest(storage, sets, request.time_ms, options.lookback_ms, checkpoint)
    checkpoint()
    return federated(samples, dict(request.types), utf8_names=request.utf8_names)


class _Counted:
    """A view that hands out at most so many samples in all."""

    def __init__(self, view: OrganizationView, samples_max: int) -> None:
        self._view = view
        self._left = samples_max

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[Frame]:
        frames = self._view.select(matchers, start_ms, end_ms)
        self._left -= sum(frame.values.size for frame in frames)
        if self._left < 0:
            raise TooManySamples("query processing would load too many samples into memory in query execution")
        return frames


def _matcher_sets(matches: Sequence[str]) -> list[tuple[Matcher, ...]]:
    return [_matchers(text) for text in matches]


def _matchers(text: str) -> tuple[Matcher, ...]:
    """Grafana asks with `{region=~".*"}`, which is answered; only no condition at all is refused."""
    matchers = parse_selector(text)
    if not matchers:
        raise _BadSelectorError("match[] must contain at least one non-empty matcher")
    return matchers


def _cut(found: Sequence[object], limit: int) -> list[str]:
    return [TRUNCATED] if limit and len(found) > limit else []


def refusal(status: int, error_type: str, sentence: str, limit: str = "") -> QueryAnswer:
    """An answer that says why there is none; `limit` is the bound that was reached."""
    return QueryAnswer(status, error_json(error_type, sentence), limit=limit)
