"""Both ends of the churn's connections: the instance that answers by plan, the client that asks by plan. Each checks
every byte it gets. Plain sockets, so that half a close is half a close and a reset is a reset."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter

from bench.churn_plan import CHUNK_BYTES, Plan, read

GIVE_UP_S = 30.0
RESET = struct.pack("ii", 1, 0)
READ_BYTES = 64 << 10


class Wire:
    """A connected socket, its loop, and what came."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        sock.setblocking(False)
        self.came = bytearray()

    async def say(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def hear(self) -> bool:
        """Something more came; False: that was all."""
        data = await self._loop.sock_recv(self._sock, READ_BYTES)
        self.came += data
        return bool(data)

    async def hear_out(self) -> None:
        """To the end; what comes is kept."""
        while await self.hear():
            pass

    async def end(self, how: str) -> None:
        """reset, close, or half: say no more, and hear the rest."""
        if how == "half":
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            await self.hear_out()
        elif how == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def close(self) -> None:
        self._sock.close()


class Instances:
    """Where the front door leads to."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening.setblocking(False)
        self.port = int(self._listening.getsockname()[1])
        self._tasks: set[asyncio.Task[None]] = set()
        self.wrong: list[str] = []

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listening)
            task = loop.create_task(self._converse(Wire(sock)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection; returns when they have."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listening.close()

    async def _converse(self, wire: Wire) -> None:
        try:
            while await self._serve_one(wire):
                pass
        except OSError:
            pass
        finally:
            wire.close()

    async def _serve_one(self, wire: Wire) -> bool:
        """Whether the connection goes on."""
        while b"\r\n\r\n" not in wire.came:
            if not await wire.hear():
                return False
        head, _, rest = bytes(wire.came).partition(b"\r\n\r\n")
        plan = read(head.split()[1].decode())
        said = plan.request().partition(b"\r\n\r\n")[2]
        wire.came = bytearray(rest)
        if plan.kind == "tunnel":  # who waits for the switch says nothing before
            await wire.say(plan.answer().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        whole = len(said)
        while len(wire.came) < whole and await wire.hear():
            pass
        if not said.startswith(wire.came):
            self.wrong.append(f"app: {plan} got bytes that were not said to it")
        if len(wire.came) < whole:
            return False
        wire.came.clear()
        answer = plan.answer_body() if plan.kind == "tunnel" else plan.answer()
        if plan.app_end == "stay":
            await wire.say(answer)
            if plan.kind in ("raw", "tunnel", "until-close"):
                await wire.end("half" if plan.number % 2 and plan.kind != "until-close" else "close")
                return False
            return True
        await wire.say(answer[: plan.app_at])
        await wire.end(plan.app_end)
        return False


class Visitors:
    """Clients; each plan is lived through once."""

    def __init__(self, http_port: int, raw_port: int) -> None:
        self._ports = {False: http_port, True: raw_port}
        self.counted: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def visit(self, plan: Plan) -> None:
        wire: Wire | None = None
        try:
            async with asyncio.timeout(GIVE_UP_S):
                sock = socket.socket()
                wire = Wire(sock)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._ports[plan.kind == "raw"]))
                await self._live(plan, wire)
        except TimeoutError:
            self.wrong.append(f"client: {plan} was left waiting, {len(wire.came) if wire else 0} bytes came")
        except OSError:
            self.counted["broken off"] += 1
        finally:
            if wire is not None:
                self._check(plan, wire.came)
                wire.close()

    async def _live(self, plan: Plan, wire: Wire) -> None:
        request = plan.request()
        if plan.client_end != "whole" and plan.client_at <= len(request):
            await wire.say(request[: plan.client_at])
            await wire.end(plan.client_end)
            return
        stop_at = plan.client_at - len(request) if plan.client_end != "whole" else 1 << 62
        await wire.say(request)
        while len(wire.came) < stop_at and not self._is_whole(plan, wire.came) and await wire.hear():
            pass
        if plan.client_end != "whole":
            await wire.end(plan.client_end)
        elif plan.kind in ("raw", "tunnel"):
            await wire.end("half")

    def _is_whole(self, plan: Plan, came: bytearray) -> bool:
        if plan.kind == "raw":
            return len(came) >= plan.size
        end = came.find(b"\r\n\r\n", 0, CHUNK_BYTES)
        return end >= 0 and (len(came) - end - 4 >= len(plan.answer_body()) or b"Flyproxy-Error" in came[:end])

    def _check(self, plan: Plan, came: bytearray) -> None:
        wanted = plan.answer_body()
        if plan.kind == "raw":
            body = bytes(came)
        else:
            head, _, body = bytes(came).partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 ") and b"\r\nFlyproxy-Error: " in head:
                self.counted["refused"] += 1
                stale = plan.kind in ("up", "chunked-up")  # an upload is not sent twice
                if plan.tame and not (stale and b"PC03" in head):
                    self.wrong.append(f"client: {plan} was refused: {head!r}")
                return
            if body and b"\r\nX-Number: %d\r\n" % plan.number not in head:
                self.wrong.append(f"client: {plan} got another's answer: {head!r}")
        if not wanted.startswith(body):
            self.wrong.append(f"client: {plan} got bytes that were not said to it")
        elif plan.tame and len(body) != len(wanted):
            self.wrong.append(f"client: {plan} got {len(body)} of {len(wanted)} bytes")
        self.counted["whole" if len(body) == len(wanted) else "partly"] += 1
