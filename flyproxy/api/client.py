"""The same API from the other side, for the command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import aiohttp
import orjson

from flyproxy.errors import FlyproxyError

ANSWER_BYTES_MAX = 256 * 1024 * 1024


class ApiClientError(FlyproxyError):
    """No usable answer: nobody there, a refusal, or something that is not our API."""

    def __init__(self, message: str, status: int = 0, error_type: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type


@dataclass(frozen=True, slots=True)
class ApiResult:
    """The `data` of a successful answer, with what was said beside it."""

    data: object
    warnings: tuple[str, ...]
    infos: tuple[str, ...]


class ApiClient:
    """One organization's API at `base_url` (as http://127.0.0.1:9290). Use with `async with`."""

    def __init__(self, base_url: str, organization: str, token: str, timeout_s: float = 60.0) -> None:
        self._prefix = f"{base_url.rstrip('/')}/prometheus/{organization}/api/v1/"
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            trust_env=False,
        )

    async def __aenter__(self) -> "ApiClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, path: str, parameters: Mapping[str, str]) -> ApiResult:
        """POST a form to one endpoint, as "query_range". Raises ApiClientError with the server's own sentence."""
        try:
            async with self._session.post(
                self._prefix + path, data=dict(parameters), allow_redirects=False
            ) as response:
                return _result(response.status, await _bounded_body(response))
        except TimeoutError:
            raise ApiClientError("no answer in time") from None
        except aiohttp.ClientConnectorError as fault:
            raise ApiClientError(
                f"nobody answers at {fault.host}:{fault.port} ({fault.os_error.strerror}); is flyproxy running?"
            ) from None
        except (aiohttp.ClientError, ValueError) as fault:
            raise ApiClientError(f"the request failed: {fault}") from None


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise ApiClientError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def _result(status: int, body: bytes) -> ApiResult:
    try:
        answer = orjson.loads(body)
        said = answer["status"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ApiClientError(f"status {status}, and not an answer of a Prometheus API", status) from None
    if said != "success":
        raise ApiClientError(str(answer.get("error", "no reason given")), status, str(answer.get("errorType", "")))
    return ApiResult(answer.get("data"), tuple(answer.get("warnings") or ()), tuple(answer.get("infos") or ()))
