"""How small sealed samples are, beside the log they came from, and what encoding and decoding them costs.

    python bench/store_density.py [FLEET_DIRECTORY] [--columns N] [--json FILE]

Without a directory: synthetic counters, gauges and sums of a front door, seeded. With one: matrices `*.npz` (`ts` int64
milliseconds [times], `vals` float64 [series, times], NaN where absent) beside `*.json` (a list of label dictionaries).
Each target's last columns become rows of the log and one chunk; CPU seconds, of this machine, the least of some rounds.
A sample is a cell that holds one; speeds are of all cells, gaps included. What comes back is compared bit by bit.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import store_append  # type: ignore[import-not-found]  # the script beside this one

from flyproxy.series.frame import is_absent
from flyproxy.series.samples import Floats, Layout
from flyproxy.tsdb.chunk import ChunkHead, EncodedChunk, decode_block, encode_chunk, open_head
from flyproxy.tsdb.chunk_order import histogram_groups
from flyproxy.tsdb.layout import decode_layout, encode_layout
from flyproxy.tsdb.log import KEY_ROWS, Bits, Place, encode_row

ROUNDS = 3


def log_bytes(times: list[int], bits: Bits) -> int:
    """What the same columns take as rows of the log."""
    size = 0
    for column, time_ms in enumerate(times):
        position = column % KEY_ROWS
        place = Place(1, time_ms, times[column - position])
        before = np.ascontiguousarray(bits[:, column - 1]) if position else None
        size += len(encode_row(place, position, np.ascontiguousarray(bits[:, column]), before))
    return size


def encode(layout: Layout, times: list[int], values: Floats) -> EncodedChunk:
    count = len(layout.series)
    groups, bounds = histogram_groups(decode_layout(1, 0, count, encode_layout(1, 0, layout.series)), count)
    return encode_chunk(1, np.array(times), values.view(np.uint64), groups, bounds)


def decode(chunk: EncodedChunk, times: list[int]) -> tuple[ChunkHead, list[Bits]]:
    head = open_head(1, times[0], times[-1], chunk.head)
    return head, [decode_block(head, block, blob) for block, blob in enumerate(chunk.blocks)]


def run(targets: list[tuple[Layout, list[int], Floats]]) -> dict[str, float]:
    cells = samples = blocks = chunk_bytes = rows_bytes = 0
    encoding = decoding = 0.0
    for layout, times, values in targets:
        spent = []
        for _ in range(ROUNDS):
            start = time.process_time()
            chunk = encode(layout, times, values)
            encoded = time.process_time()
            head, bits = decode(chunk, times)
            spent.append((encoded - start, time.process_time() - encoded))
        for row, expected in enumerate(values.view(np.uint64)):
            assert np.array_equal(bits[head.block_of[row]][head.slot_of[row]], expected)
        encoding += min(one for one, _ in spent)
        decoding += min(other for _, other in spent)
        cells += values.size
        samples += int(np.count_nonzero(~is_absent(values)))
        blocks += len(chunk.blocks)
        chunk_bytes += len(chunk.head) + sum(map(len, chunk.blocks))
        rows_bytes += log_bytes(times, values.view(np.uint64))
    return {
        "series": float(sum(len(layout.series) for layout, _, _ in targets)),
        "samples": float(samples),
        "blocks": float(blocks),
        "log_bytes_per_sample": rows_bytes / samples,
        "chunk_bytes_per_sample": chunk_bytes / samples,
        "log_over_chunk": rows_bytes / chunk_bytes,
        "encode_cpu_us_per_sample": encoding / cells * 1e6,
        "decode_samples_per_us": cells / decoding / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", nargs="?", type=Path, help="a directory of .npz and .json files")
    parser.add_argument("--columns", type=int, default=480, help="of each chunk")
    parser.add_argument("--json", type=Path, help="write the figures there")
    asked = parser.parse_args()
    given = store_append.fleet(asked.fleet, asked.columns) if asked.fleet else store_append.synthetic(asked.columns)
    figures = run([(layout, times, np.ascontiguousarray(values)) for layout, times, values in given])
    for name, figure in figures.items():
        print(f"{name:28} {figure:14,.3f}")
    if asked.json:
        versions = {"python": platform.python_version(), "numpy": np.__version__}
        asked.json.write_text(
            json.dumps({"figures": figures, "versions": versions, "arguments": sys.argv[1:]}, indent=1)
        )


if __name__ == "__main__":
    main()
