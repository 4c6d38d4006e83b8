"""The soak's app: does what the path says, exports metrics of its own, and leaves without losing a request.

    python -m bench.soak_app --ports 18081,18082

`/s/<status>/<delay in ms>` answers so; `/metrics` has a histogram and a counter by status. On SIGTERM it takes no more
connections, answers what it has, and ends.
"""

import argparse
import asyncio
import contextlib
import signal

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

ANSWERED = Counter("app_answers", "Answers by status", ["status"])
ASKED_MS = Histogram("app_delay_seconds", "Delays asked for")
BODIES = {200: b"b" * 700, 404: b"no such thing\n", 500: b"on purpose\n"}
LEAVE_S = 5.0


class App:
    """Answers on several ports."""

    def __init__(self) -> None:
        self._busy = 0
        self._idle = asyncio.Event()
        self._leaving = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def run(self, ports: list[int]) -> None:
        """Until SIGTERM."""
        servers = [await asyncio.start_server(self._converse, "127.0.0.1", port) for port in ports]
        asked_to_leave = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_leave.set)
        await asked_to_leave.wait()
        self._leaving = True
        for server in servers:
            server.close()
        for _ in range(round(LEAVE_S / 0.05)):
            await asyncio.sleep(0.05)  # and a moment for what is on its way
            if not self._busy:
                break
        for writer in self._writers:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not self._leaving:
                head = await reader.readuntil(b"\r\n\r\n")
                self._busy += 1
                try:
                    await self._answer(head, reader, writer)
                finally:
                    self._busy -= 1
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
        await reader.readexactly(length)
        path = lines[0].split()[1]
        status, content_type, body = 200, CONTENT_TYPE_LATEST, b""
        if path == b"/metrics":
            body = generate_latest()
        else:
            _, _, wanted, delay_ms = path.split(b"/")[:4]
            status, content_type = int(wanted), "text/plain"
            body = BODIES.get(status, b"ok\n")
            await asyncio.sleep(int(delay_ms) / 1000)
            ANSWERED.labels(str(status)).inc()
            ASKED_MS.observe(int(delay_ms) / 1000)
        connection = "close" if self._leaving else "keep-alive"
        answer = (
            f"HTTP/1.1 {status} Said\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {connection}\r\n\r\n"
        )
        writer.write(answer.encode() + body)
        await writer.drain()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", required=True, type=lambda text: [int(port) for port in text.split(",")])
    asyncio.run(App().run(parser.parse_args().ports))


if __name__ == "__main__":
    main()
