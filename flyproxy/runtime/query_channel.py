"""What telemetry and a query worker say to each other over a unix socket: length-prefixed pickles of our own making.

One question at a time per connection. The worker says hello with its pid, so that the asker can end it when it
overruns its deadline; the asker closes the connection to take a question back.
"""

import asyncio
import pickle
import struct
from dataclasses import dataclass
from typing import Any

_LENGTH = struct.Struct(">Q")
ANSWER_BYTES_MAX = 1 << 32


@dataclass(frozen=True, slots=True)
class Hello:
    """First word of a worker on every connection."""

    pid: int
    threaded: bool


async def read_value(reader: asyncio.StreamReader) -> Any:
    """The next value; raises IncompleteReadError when the other end is gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    assert length <= ANSWER_BYTES_MAX, "an answer of our own is bounded"
    return pickle.loads(await reader.readexactly(length))


def write_value(writer: asyncio.StreamWriter, value: object) -> None:
    """Queue one value."""
    payload = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    writer.write(_LENGTH.pack(len(payload)))
    writer.write(payload)
