"""The channel between supervisor and child."""

import asyncio
import os

from flyproxy.runtime.control import DESCRIPTORS_PER_FRAME, Channel, channel_pair
from flyproxy.runtime.messages import Abort, Beat, Commit, Message, Refused


class End:
    """One end that remembers what it heard."""

    def __init__(self, sock: "object") -> None:
        self.heard: list[tuple[Message, list[int]]] = []
        self.closed = asyncio.Event()
        self.arrived = asyncio.Event()
        self.channel = Channel(sock, self._hear, self.closed.set)  # type: ignore[arg-type]

    def _hear(self, message: Message, descriptors: list[int]) -> None:
        self.heard.append((message, descriptors))
        self.arrived.set()

    async def wait_heard(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self.arrived.clear()
                await self.arrived.wait()


def ends() -> tuple[End, End]:
    ours, theirs = channel_pair()
    return End(ours), End(theirs)


async def test_messages_arrive_in_order() -> None:
    one, other = ends()
    sent: list[Message] = [Beat(), Commit(2), Abort(3)]
    for message in sent:
        one.channel.send(message)
    await other.wait_heard(3)
    assert [message for message, _ in other.heard] == sent
    one.channel.close()
    other.channel.close()


async def test_descriptors_arrive_with_their_message_and_the_sender_keeps_its_own() -> None:
    one, other = ends()
    readable, writable = os.pipe()
    count = 2 * DESCRIPTORS_PER_FRAME + 1
    one.channel.send(Commit(1), [writable] * count)
    one.channel.send(Commit(2))
    await other.wait_heard(2)
    (_, received), (_, none) = other.heard
    assert len(received) == count
    assert none == []
    os.write(received[-1], b"through")
    assert os.read(readable, 10) == b"through"
    os.fstat(writable)
    for number in (*received, readable, writable):
        os.close(number)
    one.channel.close()
    other.channel.close()


async def test_a_message_larger_than_the_socket_buffer_arrives_whole() -> None:
    one, other = ends()
    one.channel.send(Refused(1, "x" * 3_000_000))
    await other.wait_heard(1)
    assert other.heard[0][0] == Refused(1, "x" * 3_000_000)
    one.channel.close()
    other.channel.close()


async def test_the_other_end_hears_the_end_once_and_sending_is_silent_then() -> None:
    one, other = ends()
    one.channel.close()
    async with asyncio.timeout(10):
        await other.closed.wait()
    assert other.channel.closed
    other.channel.send(Beat())
    one.channel.send(Beat())


async def test_descriptors_nobody_took_are_closed() -> None:
    one, other = ends()
    before = len(os.listdir("/proc/self/fd"))
    readable, writable = os.pipe()
    for _ in range(20):
        one.channel.send(Commit(1), [writable])
    one.channel.close()
    other.channel.close()
    os.close(readable)
    os.close(writable)
    assert len(os.listdir("/proc/self/fd")) <= before
