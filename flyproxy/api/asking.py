"""What every route of an organization begins and ends with: whose token it is, what is asked, and the question's way
through its organization's line to a query worker and back.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import orjson
from aiohttp import web

from flyproxy.api.access import organization_grant
from flyproxy.api.admission import Admission
from flyproxy.api.faults import ApiFault
from flyproxy.api.multipart import multipart_pairs
from flyproxy.api.negotiation import compressed
from flyproxy.api.parameters import Parameters, body_pairs, form_pairs
from flyproxy.api.ports import Ports, QueryAnswer, QueryRequest
from flyproxy.api.render import data_json
from flyproxy.api.tokens import OPERATOR_ORGANIZATION, Grant, Scope, TokenFile
from flyproxy.clock import Clock
from flyproxy.config.resolved import Telemetry
from flyproxy.errors import NotReadyError

BODY_TIMEOUT_S = 30.0
"""For the whole body of a POST."""
UNREAD_BYTES_MAX = 128 * 1024 * 1024
"""Of one organization's large answers in memory; one answer alone may be as large."""
LARGE_BYTES = 1024 * 1024
"""An answer above this counts as its organization's until its reader has it."""
PIECE_BYTES = 256 * 1024
"""How much of a large answer is with the kernel and the transport at once."""
GRACE_S = 3.0
"""What an answer may come after its deadline, so that the query worker's own sentence arrives: a last guard, the
deadline itself is kept by whoever answers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose token may read the organization of its path."""

    organization: str
    parameters: Parameters
    grant: Grant

    @property
    def by_operator(self) -> bool:
        """Who asks may see everything of this front door."""
        return self.grant.scope is Scope.OPERATOR


class Asking:
    """One for all routes: they share the lines of the organizations."""

    def __init__(self, ports: Ports, telemetry: Callable[[], Telemetry], tokens: TokenFile, clock: Clock) -> None:
        self.ports = ports
        self.telemetry = telemetry
        self.clock = clock
        self._tokens = tokens
        self._unread: Counter[str] = Counter()
        """Bytes of large answers, by organization."""
        self._admission = Admission(lambda: telemetry().query_concurrency)

    async def asked(self, request: web.Request) -> Asked:
        """Who asks, and what. Raises ApiFault; nothing of the body is read before the token is known to be good."""
        organization, grant = self.organization(request)
        _, _, query = request.raw_path.partition("?")
        url = form_pairs(query, "URL")
        return Asked(organization, Parameters(await _body_parameters(request), url), grant)

    def organization(self, request: web.Request) -> tuple[str, Grant]:
        """The organization of the path, when the token may read it."""
        organization = request.match_info["organization"]
        grant = organization_grant(request, self._tokens, organization)
        if organization not in self.telemetry().organizations and organization != OPERATOR_ORGANIZATION:
            if grant.scope is Scope.OPERATOR:
                raise ApiFault(404, "not_found", "there is no such organization in the configuration")
            raise ApiFault(403, "forbidden", "this token's organization is not in the configuration any more")
        return organization, grant

    def timeout_s(self, parameters: Parameters) -> float:
        """The time a question may take, waiting included."""
        return parameters.timeout_s(self.telemetry().query_timeout_s)

    async def answer(self, request: web.Request, question: QueryRequest) -> web.StreamResponse:
        """What the query worker says to it. A large answer is sent before the organization's turn ends: so many of them
        are in memory at once, however slowly they are read."""
        async with AsyncExitStack() as turn:
            answer = await self._worked(question, turn)
            if answer.limit:
                self.ports.status.limit_reached(answer.limit)
            if len(answer.body) <= LARGE_BYTES:
                return await compressed(request, answer.status, answer.body, answer.content_type)
            with self._held(question.organization, len(answer.body)):
                return await _sent(request, await compressed(request, answer.status, answer.body, answer.content_type))

    @contextmanager
    def _held(self, organization: str, size: int) -> Iterator[None]:
        """While a large answer is in memory. Raises ApiFault when its organization has too much there already."""
        unread = self._unread[organization]
        if unread and unread + size > UNREAD_BYTES_MAX:
            raise ApiFault(
                429,
                "unavailable",
                f"{unread:,} bytes of answers to this organization wait to be read; read them first",
                {"Retry-After": "1"},
                limit="api_unread_bytes",
            )
        self._unread[organization] += size
        try:
            yield
        finally:
            self._unread[organization] -= size

    async def check_matches(self, asked: Asked, matches: tuple[str, ...]) -> None:
        """Raises ApiFault, as the query worker says it, for a match[] that is no selector."""
        if not matches:
            return
        question = QueryRequest(
            "check_matches", asked.organization, matches=matches, timeout_s=self.timeout_s(asked.parameters)
        )
        async with AsyncExitStack() as turn:
            answer = await self._worked(question, turn)
        if answer.status != 200:
            said = orjson.loads(answer.body)
            raise ApiFault(answer.status, said["errorType"], said["error"])

    async def data(self, request: web.Request, data: object, warnings: Sequence[str] = ()) -> web.Response:
        """An answer that needed no query worker."""
        return await compressed(request, 200, data_json(data, warnings), "application/json")

    async def _worked(self, question: QueryRequest, turn: AsyncExitStack) -> QueryAnswer:
        """The answer; the organization's turn goes on until `turn` ends. Raises ApiFault at the deadline, which
        covers the waiting too, and when nobody is there."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + question.timeout_s
        try:
            async with asyncio.timeout_at(deadline) as waiting:
                await turn.enter_async_context(self._admission.turn(question.organization))
                waiting.reschedule(deadline + GRACE_S)
                left_s = max(0.001, deadline - loop.time())
                return await self.ports.query.ask(replace(question, timeout_s=left_s))
        except TimeoutError:
            raise ApiFault(
                503, "timeout", f"query timed out after {question.timeout_s:g} s", limit="api_query_timeout"
            ) from None
        except NotReadyError as fault:
            raise ApiFault(503, "unavailable", str(fault), {"Retry-After": "1"}) from None


async def _sent(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """A large answer, read by the other end but for its last piece. A transport copies what it is given and cannot
    send at once; so the answer is in memory once, not twice."""
    body = whole.body
    assert isinstance(body, bytes)
    response = web.StreamResponse(status=whole.status, headers=whole.headers)
    response.content_length = len(body)
    with suppress(ConnectionError):  # whoever serves the connection meets it too
        await response.prepare(request)
        left = memoryview(body) if request.method != "HEAD" else memoryview(b"")
        for start in range(0, len(left), PIECE_BYTES):
            await response.write(left[start : start + PIECE_BYTES])
        await response.write_eof()
    return response


async def _body_parameters(request: web.Request) -> list[tuple[str, str]]:
    """Parameters of a POST's body; a GET's body is not looked at."""
    if request.method != "POST":
        return []
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise ApiFault(
            408, "timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s", limit="api_body_timeout"
        ) from None
    if request.content_type == "multipart/form-data":
        return multipart_pairs(request.headers["Content-Type"], body)
    return body_pairs(body)
