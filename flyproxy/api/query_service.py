"""One question answered: what a query worker calls. No HTTP server, no loop; status and JSON bytes come back.

Whatever goes wrong with the question becomes an answer here; only the deadline's and the store's own failures that
mean something to the process (a lost database, no memory) are left to it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from flyproxy.api.faults import error_json
from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.api.render import data_json, result_json, series_json
from flyproxy.promql.engine import Engine
from flyproxy.promql.errors import BadQueryRange, QueryCanceled, QueryError, QueryTimeout
from flyproxy.promql.parse import parse_selector
from flyproxy.promql.parse_error import ParseError
from flyproxy.series.frame import Storage
from flyproxy.series.labels import Labels
from flyproxy.series.matchers import BadPatternError, Matcher

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

    def series(self, matcher_sets: MatcherSets, start_ms: int, end_ms: int) -> list[Labels]:
        """Sorted, each once."""
        ...


def answer(request: QueryRequest, engine: Engine, view: OrganizationView, checkpoint: Checkpoint) -> QueryAnswer:
    """The answer to any question, also to a wrong one. `checkpoint` may raise QueryTimeout or QueryCanceled."""
    try:
        return QueryAnswer(200, _body(request, engine, view, checkpoint))
    except (ParseError, BadPatternError) as fault:
        parameter = "query" if request.expression else "match[]"
        return _refused(400, "bad_data", f'invalid parameter "{parameter}": {fault}')
    except _BadSelectorError as fault:
        return _refused(400, "bad_data", f'invalid parameter "match[]": {fault}')
    except BadQueryRange as fault:
        return _refused(400, "bad_data", str(fault))
    except QueryTimeout as fault:
        return _refused(503, "timeout", str(fault) or "query timed out in expression evaluation")
    except QueryCanceled as fault:
        return _refused(503, "canceled", str(fault) or "query was canceled in expression evaluation")
    except QueryError as fault:
        return _refused(422, "execution", str(fault))
    except RecursionError:
        return _refused(422, "execution", "the expression is nested too deeply")


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


def _refused(status: int, error_type: str, message: str) -> QueryAnswer:
    return QueryAnswer(status, error_json(error_type, message))
