"""What telemetry and a query worker say to each other over a unix socket: length-prefixed pickles of our own making.

One question at a time per connection. The worker says hello with its pid, so that the asker can end it when it
overruns its deadline; the asker closes the connection to take a question back. An answer's body travels beside its
pickle, in pieces: neither side holds a second copy of what may be a hundred megabytes (and a worker whose memory is
used up still has the few bytes to say so).
"""

import asyncio
import pickle
import struct
from dataclasses import dataclass
from typing import Any

from flyproxy.api.ports import QueryAnswer

_LENGTH = struct.Struct(">Q")
_ANSWER = struct.Struct(">HBBQ")
"""Status, lengths of the content type, of the limit's name, of the body."""
ANSWER_BYTES_MAX = 1 << 32
PIECE_BYTES = 1 << 18
"""How much of an answer is on its way to the kernel at once."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First word of a worker on every connection."""

    pid: int
    threaded: bool


async def read_value(reader: asyncio.StreamReader) -> Any:
    """The next value; raises IncompleteReadError when the other end is gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    assert length <= ANSWER_BYTES_MAX, "a value of our own is bounded"
    return pickle.loads(await reader.readexactly(length))


def write_value(writer: asyncio.StreamWriter, value: object) -> None:
    """Queue one value."""
    payload = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    writer.write(_LENGTH.pack(len(payload)) + payload)


async def read_answer(reader: asyncio.StreamReader) -> QueryAnswer:
    """The next answer; raises IncompleteReadError when the other end is gone."""
    status, type_length, limit_length, length = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
    assert length <= ANSWER_BYTES_MAX, "an answer of our own is bounded"
    content_type = (await reader.readexactly(type_length)).decode()
    limit = (await reader.readexactly(limit_length)).decode()
    return QueryAnswer(status, await reader.readexactly(length), content_type, limit)


async def write_answer(writer: asyncio.StreamWriter, answer: QueryAnswer) -> None:
    """On its way, all but the last piece taken by the other end; raises ConnectionError when that is gone."""
    content_type, limit = answer.content_type.encode(), answer.limit.encode()
    writer.write(_ANSWER.pack(answer.status, len(content_type), len(limit), len(answer.body)) + content_type + limit)
    body = memoryview(answer.body)
    for start in range(0, len(body), PIECE_BYTES):
        writer.write(body[start : start + PIECE_BYTES])
        await writer.drain()
    await writer.drain()
