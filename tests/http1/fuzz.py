"""`make fuzz`: mutated messages until the time is over or one of them tells two readers apart; that one is made small
and written to cases/found/, where the tests read it from then on.

    python -m tests.http1.fuzz --minutes 5 [--seed N]
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

from tests.http1.case_files import escape
from tests.http1.mutator import Mutator, found_file, seeds
from tests.http1.oracles import Oracle
from tests.http1.reading import Codec

ROUND = 2000
"""Messages before the next seed; each round's readers begin with nothing remembered."""
SMALL = {"head_bytes": 600, "line_bytes": 120, "header_count": 8, "chunk_line_bytes": 30, "trailer_bytes": 80}
"""Bounds that small messages reach; every second round has them."""
METHODS = (b"GET", b"HEAD")


def play(codec: Codec, seed: int, messages: int) -> tuple[str, bytes, bytes, str, dict[str, int]] | None:
    """One round: the first message that tells two readers apart (its kind and method, and what is wrong), or None."""
    limits = SMALL if seed % 2 else {}
    oracle = Oracle(codec, seed, **limits)
    requests, answers = Mutator(seeds("requests"), seed), Mutator(seeds("responses"), seed)
    for number in range(messages):
        if number % 3:
            raw = requests.next()
            if wrong := oracle.request(raw):
                return "request", b"", raw, wrong, limits
        else:
            raw, method = answers.next(), METHODS[number % 2]
            if wrong := oracle.answer(raw, method):
                return "response", method, raw, wrong, limits
    return None


def shrink(raw: bytes, is_wrong: Callable[[bytes], bool]) -> bytes:
    """A smallest part of these bytes that is still wrong: nothing of it can be left out."""
    size = max(1, len(raw) // 2)
    while True:
        at, shorter = 0, raw
        while at < len(shorter):
            without = shorter[:at] + shorter[at + size :]
            if is_wrong(without):
                shorter = without
            else:
                at += size
        if size == 1 and shorter == raw:
            return raw
        raw, size = shorter, max(1, size // 2)


def keep(codec: Codec, kind: str, method: bytes, raw: bytes, limits: dict[str, int]) -> str:
    """Shrink, write the file, and say what it is."""

    def is_wrong(candidate: bytes) -> bool:
        oracle = Oracle(codec, 0, **limits)
        return bool(oracle.request(candidate) if kind == "request" else oracle.answer(candidate, method))

    small = shrink(raw, is_wrong) if is_wrong(raw) else raw
    path = found_file(kind, method, small)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((kind.encode() + b" " + method).strip() + b"\n---\n" + escape(small) + b"\n")
    return f"{path}:\n{escape(small).decode()}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=5.0)
    arguments.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    chosen = arguments.parse_args()
    codec, seed, end = Codec(), chosen.seed, time.monotonic() + 60 * chosen.minutes
    print(f"seed {seed}; readers: {', '.join(codec.request_parsers)}, h11, llhttp", flush=True)
    rounds = 0
    while time.monotonic() < end:
        odd = play(codec, seed + rounds, ROUND)
        if odd is not None:
            kind, method, raw, wrong, limits = odd
            print(f"seed {seed + rounds}: {wrong}\n{keep(codec, kind, method, raw, limits)}")
            return 1
        rounds += 1
    print(f"{rounds * ROUND} messages, all readers agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
