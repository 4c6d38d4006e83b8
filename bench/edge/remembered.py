"""What the parsers had seen before of the header lines that came, and how many requests a fold serves.

Looked at in a run of its own, because looking costs more than parsing. Of each line of each head:

known        the parser held this very line: in its memory of lines, or as a line of the connection's head before
seen before  it came before at all in this run: no memory, however large, could have known more
"""

from typing import Any

from flyproxy.edge.server import EdgeServer
from flyproxy.instrument.recorder import Recorder

WATCHED = "watched.json"
"""What the worker leaves in its folder."""


class FoldingRecorder(Recorder):
    """Counts its folds."""

    folds = 0

    def fold(self) -> None:
        self.folds += 1
        super().fold()


class Watched:
    """A parser that is looked at; `Any`, because it stands for whichever parser is in use."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._seen: set[bytes] = set()
        self._sorted = 0
        self.heads = self.lines = self.known = self.seen_before = 0
        if hasattr(parser, "_sort_out"):
            self._sort_out = parser._sort_out
            parser._sort_out = self._looked_up

    def parse(self, buffer: bytes | bytearray, *rest: Any) -> Any:
        before = rest[-1] if rest and not isinstance(rest[-1], bytes) else None
        old = (getattr(before, "tail", b"") or getattr(before, "raw", b"")).split(b"\r\n")
        self._sorted = 0
        head = self._parser.parse(buffer, *rest)
        if head is not None:
            lines = bytes(buffer[: head.size]).split(b"\r\n")[1:-2]
            self.heads += 1
            self.lines += len(lines)
            self.known += len(set(lines) & set(old)) if head is before else self._sorted
            self.seen_before += sum(line in self._seen for line in lines)
            self._seen.update(lines)
        return head

    def statistics(self) -> dict[str, int]:
        return {
            "heads": self.heads,
            "lines": self.lines,
            "known": self.known,
            "seen_before": self.seen_before,
            "distinct": len(self._seen),
            **self._parser.statistics(),
        }

    def _looked_up(self, lines: list[bytes], others: list[bytes]) -> Any:
        self._sorted = len(lines) - len(others) + sum(line in self._parser._verdicts for line in others)
        return self._sort_out(lines, others)


class Remembered:
    """Both parsers of an edge that has just started."""

    def __init__(self, server: EdgeServer) -> None:
        worker: Any = server._running()
        self._requests = worker.request_parser = Watched(worker.request_parser)
        self._answers = worker.response_parser = Watched(worker.response_parser)

    def statistics(self) -> dict[str, dict[str, int]]:
        return {"requests": self._requests.statistics(), "answers": self._answers.statistics()}
