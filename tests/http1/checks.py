"""What the cases say, held against what the parsers say."""

from collections.abc import Iterator
from typing import Any

from flyproxy.edge.forwarding import OWNED
from flyproxy.edge.upstream import INTERIM_MAX
from tests.http1.case_files import Case, unescape
from tests.http1.reading import COMPLETE, FAULT, OPEN, Codec, Said, byte_by_byte, splits

PARSER_FAULTS = frozenset((400, 414, 417, 431, 501, 505))
"""Statuses by which a parser refuses; others are the edge's, to a request that was read."""
BYTEWISE_MAX = 1500
"""Longer messages are cut at some places only."""


def check_request(codec: Codec, case: Case, *, quick: bool = False) -> Iterator[str]:
    """What is wrong with how this case is read; `quick`: whole and byte by byte only."""
    limits = codec.HeadLimits()
    expected = _expected_of_requests(case)
    first: list[Said] | None = None
    for name, make in codec.request_parsers.items():
        parser = make(limits, OWNED)
        for again in range(2):
            said = codec.requests(parser, [case.raw], limits)
            if _summary(said) not in expected:
                yield f"{case.id}: {name} says {_summary(said)}, wanted {' or '.join(map(str, expected))}"
                return
            first = first or said
            if said != first:
                yield f"{case.id}: {name} ({'again' if again else 'first'}) says {said}, another {first}"
                return
        assert first is not None
        yield from _check_heads(case, first)
        for pieces in _cuts(case.raw, quick=quick):
            said = codec.requests(parser, pieces, limits)
            if said != first and (_summary(said) not in expected or said[:-1] != first[: len(said) - 1]):
                yield f"{case.id}: {name} says {said} in pieces, {first} of the whole"
                return


def check_response(codec: Codec, case: Case, *, quick: bool = False) -> Iterator[str]:
    """As check_request. An unasked 1xx or 101 is the edge's to refuse, and not seen here."""
    limits = codec.HeadLimits()
    method = (case.said("to") or ["GET"])[0].split()[0].encode()
    first: list[Said] | None = None
    for name, make in codec.response_parsers.items():
        parser = make(limits, frozenset((b"server",)))
        for _ in range(2):
            said = codec.answer(parser, [case.raw], method, limits)
            if fault := _wrong_answer(case, said):
                yield f"{case.id}: {name} says {_summary(said)}: {fault}"
                return
            first = first or said
            if said != first:
                yield f"{case.id}: {name} says {said}, another {first}"
                return
        assert first is not None
        for pieces in _cuts(case.raw, quick=quick):
            said = codec.answer(parser, pieces, method, limits)
            if said != first:
                yield f"{case.id}: {name} says {said} in pieces, {first} of the whole"
                return


def _cuts(raw: bytes, *, quick: bool) -> Iterator[list[bytes]]:
    if len(raw) <= BYTEWISE_MAX:
        yield byte_by_byte(raw)
    if not quick:
        yield from splits(raw, BYTEWISE_MAX if len(raw) <= BYTEWISE_MAX else 20)


def _summary(said: list[Said]) -> tuple[Any, ...]:
    """Messages read to their end, and how it stands then."""
    end: Any = ""
    if said and said[-1][0] in (FAULT, OPEN):
        end = said[-1][1] if said[-1][0] == FAULT else OPEN
    whole = 0
    for entry, following in zip(said, [*said[1:], ("",)], strict=True):
        if entry[0] == "head":
            bodiless = not entry[1].get("chunked") and entry[1].get("content_length", 0) <= 0
            whole += bodiless or following[0] == "body"
    return whole, end


def _expected_of_requests(case: Case) -> list[tuple[Any, ...]]:
    verdict = case.verdict
    if verdict[0] == "passed":
        if verdict[1:] == ("close",):  # nothing behind it is read, whatever it is
            heads = case.raw.count(b" HTTP/1.")
            return [(number, "") for number in range(1, heads + 1)]
        return [(1, "")]
    if verdict[0] == "refused":
        return [(0, int(status)) for status in verdict[1:]]
    if verdict[0] == "waits":
        return [(0, OPEN)]
    statuses = [int(word) for word in verdict[1:] if word.isdigit() and word != "100"]
    if 413 in statuses:
        return [(0, OPEN)]
    whole = sum(status not in PARSER_FAULTS for status in statuses)
    if verdict[-1] == "waits":
        return [(whole, OPEN)]
    if statuses[-1] in PARSER_FAULTS:
        return [(whole, statuses[-1])]
    return [(whole, ""), (whole + 1, "")] if verdict[-1] == "close" else [(whole, "")]


def _check_heads(case: Case, said: list[Said]) -> Iterator[str]:
    heads = [entry[1] for entry in said if entry[0] == "head"]
    for head, seen in zip(heads, case.said("sees") if "404" not in case.verdict else [], strict=False):
        if f"{head['method'].decode()} {head['target'].decode()}" != unescape(seen.encode()).decode():
            yield f"{case.id}: read as {head['method']!r} {head['target']!r}, wanted {seen}"
    if not heads or "404" in case.verdict:
        return
    if case.verdict[0] == "passed" and heads[0]["keep_alive"] != (case.verdict[1:] != ("close",)):
        yield f"{case.id}: the connection's end is read otherwise"
    lines = heads[0]["block"].split(b"\r\n")
    names = {line.partition(b":")[0].lower().decode() for line in lines}
    for name in case.said("lacks"):
        if name in names:
            yield f"{case.id}: {name} goes on"
    for text in case.said("lacks-text"):
        if text.encode() in heads[0]["block"]:
            yield f"{case.id}: {text} goes on"
    made_by_the_edge = ("content-length", "transfer-encoding", "connection", "upgrade", "te", "via", "host")
    for line in case.said("has"):
        if not line.lower().startswith(made_by_the_edge) and unescape(line.encode()) not in lines:
            yield f"{case.id}: {line} does not go on"
    for body in case.said("body"):
        wanted, head = len(unescape(body.encode())), heads[0]
        got = next((entry[2] for entry in said if entry[0] == "body"), 0) if head["chunked"] else None
        if (max(head["content_length"], 0) if got is None else got) != wanted:
            yield f"{case.id}: a body of {wanted} bytes is read as another"


def _wrong_answer(case: Case, said: list[Said]) -> str:
    status, end = int(case.verdict[1]), said[-1] if said else (OPEN,)
    heads = [entry[1] for entry in said if entry[0] == "head"]
    for head in heads:
        names = {line.partition(b":")[0].lower().decode() for line in head["start"].split(b"\r\n")[1:]}
        if head is heads[-1] and (going := names & set(case.said("lacks"))):
            return f"{going} goes on"
    if len(heads) > INTERIM_MAX + 1:
        return ""  # the edge counts them
    if case.verdict[2:] == ("cut",) or case.said("then") == ["reset"]:
        return "it is whole" if end[0] == COMPLETE and heads[-1]["content_length"] >= 0 else ""
    if status == 502:
        unasked = bool(heads) and (heads[0]["status"] == 100 or (heads[0]["status"] == 101 and heads[0]["upgrade"]))
        return "nothing is wrong" if end[0] == COMPLETE and not unasked else ""
    if end[0] != COMPLETE or heads[-1]["status"] != status:
        return f"wanted {status}"
    if case.said("pool") and heads[-1]["keep_alive"] != (case.said("pool") == ["kept"]):
        return "the connection's end is read otherwise"
    return ""
