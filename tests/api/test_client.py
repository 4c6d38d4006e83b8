"""The command line's client against answers of all kinds, byte for byte."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from flyproxy.api.client import ApiClient, ApiClientError, ApiResult


@dataclass
class Elsewhere:
    """Answers every request with these bytes."""

    answer: bytes = b""
    heads: list[bytes] = field(default_factory=list)
    url: str = ""

    def says(self, body: bytes, status: str = "200 OK", headers: str = "") -> None:
        self.answer = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        writer.close()


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    elsewhere = Elsewhere()
    server = await asyncio.start_server(elsewhere.converse, "127.0.0.1", 0)
    elsewhere.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield elsewhere
    server.close()


async def asked(elsewhere: Elsewhere) -> ApiResult:
    async with ApiClient(elsewhere.url, "personal", "fp_x") as client:
        return await client.ask("query", {"query": "up"})


async def test_an_answer_is_its_data_and_what_was_said_beside_it(elsewhere: Elsewhere) -> None:
    elsewhere.says(b'{"status":"success","data":[1],"warnings":["w"],"infos":null}')
    assert await asked(elsewhere) == ApiResult([1], ("w",), ())
    head = elsewhere.heads[0].decode()
    assert head.startswith("POST /prometheus/personal/api/v1/query HTTP/1.1\r\n")
    assert "Authorization: Bearer fp_x\r\n" in head


async def test_a_token_does_not_follow_a_redirect(elsewhere: Elsewhere) -> None:
    elsewhere.says(b"", "307 Temporary Redirect", f"Location: {elsewhere.url}/steal\r\n")
    with pytest.raises(ApiClientError, match="status 307, and not an answer of a Prometheus API"):
        await asked(elsewhere)
    assert len(elsewhere.heads) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"1", b"{}", b'{"data":1}'])
async def test_what_is_no_prometheus_api_is_told(elsewhere: Elsewhere, body: bytes) -> None:
    elsewhere.says(body)
    with pytest.raises(ApiClientError, match="not an answer of a Prometheus API"):
        await asked(elsewhere)


async def test_a_refusal_is_the_servers_own_sentence(elsewhere: Elsewhere) -> None:
    elsewhere.says(b'{"status":"error","errorType":"bad_data","error":"no"}', "400 Bad Request")
    with pytest.raises(ApiClientError, match=r"^no$") as fault:
        await asked(elsewhere)
    assert (fault.value.status, fault.value.error_type) == (400, "bad_data")


@pytest.mark.parametrize("answer", [b"", b"\0\1\2\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
async def test_a_broken_answer_is_told(elsewhere: Elsewhere, answer: bytes) -> None:
    elsewhere.answer = answer
    with pytest.raises(ApiClientError, match="the request failed"):
        await asked(elsewhere)
