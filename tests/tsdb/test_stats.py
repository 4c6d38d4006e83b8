"""What a store holds and costs, in all and by organization."""

import dataclasses
import json
import os
import sqlite3
from collections.abc import Callable

import pytest

from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import StoreMissingError, Writer
from flyproxy.tsdb.log import KEY_ROWS
from flyproxy.tsdb.stats import stats

BEAT_MS = 15_000
ROWS = 4 * KEY_ROWS


@pytest.fixture
def filled(
    open_writer: Callable[..., Writer],
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
    seal_all: Callable[..., int],
) -> Writer:
    writer = open_writer()
    both = layout("a", "b")
    writer.append([batch(beat * BEAT_MS, both, [beat, 1]) for beat in range(ROWS)])
    assert seal_all(writer, ROWS * BEAT_MS, KEY_ROWS * BEAT_MS)
    writer.append([batch(10**9 + beat, layout("a"), [beat], organization="shop") for beat in range(3)])
    return writer


def test_samples_are_counted_once_in_the_log_or_in_chunks(filled: Writer, store_path: str) -> None:
    found = stats(store_path)
    assert (found.total.frames, found.total.series, found.total.targets) == (2, 3, 2)
    assert found.total.log.samples + found.total.chunks.samples == 2 * ROWS + 3
    assert found.total.chunks.samples > 0
    assert (found.total.first_ms, found.total.last_ms) == (0, 10**9 + 2)
    assert found.format == 2
    assert found.file_bytes == os.path.getsize(store_path) or found.wal_bytes > 0
    assert found.total.chunks.bytes_a_sample == round(found.total.chunks.bytes / found.total.chunks.samples, 4)
    assert found.heads_damaged == 0


def test_each_organization_has_its_share(filled: Writer, store_path: str) -> None:
    found = stats(store_path)
    assert [one.name for one in found.organizations] == ["personal", "shop"]
    shop = found.organizations[1]
    assert (shop.series, shop.log.pieces, shop.log.samples, shop.chunks.pieces) == (1, 3, 3, 0)
    assert shop.chunks.bytes_a_sample is None
    alone = stats(store_path, "shop")
    assert alone.organizations == [shop]
    assert (alone.total.log, alone.total.first_ms) == (shop.log, 10**9)
    assert stats(store_path, "nobody").organizations == []


def test_they_can_be_written_as_json(filled: Writer, store_path: str) -> None:
    told = json.loads(json.dumps(dataclasses.asdict(stats(store_path))))
    assert told["organizations"][0]["chunks"]["pieces"] >= 1


def test_what_cannot_be_counted_is_said(filled: Writer, store_path: str) -> None:
    filled.close()
    connection = sqlite3.connect(store_path)
    connection.execute("UPDATE chunks SET head = x'00'")
    connection.execute("UPDATE log SET blob = x'00' WHERE frame = 2")
    connection.commit()
    connection.close()
    found = stats(store_path)
    assert found.heads_damaged == found.total.chunks.pieces + 3
    assert found.total.chunks.samples == 0


def test_without_a_store_it_says_so(store_path: str) -> None:
    with pytest.raises(StoreMissingError):
        stats(store_path)
