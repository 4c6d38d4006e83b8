"""Every family the front door exports, once: name, type, help, labels, unit, buckets.

Names live here and nowhere else: recorders, snapshot, /metrics and docs/metrics.md all read this table
(`python -m flyproxy.instrument.catalog` prints that page). Fly's own names and types are kept to the letter: its
counters end in `_count` or in nothing, never in `_total`. What is ours beyond Fly follows Prometheus' naming rules.

An edge worker imports this file: no numpy here.
"""

from dataclasses import dataclass
from typing import Literal

FamilyType = Literal["counter", "gauge", "histogram"]

OPERATOR = "_operator"
"""The organization of the front door itself."""
UNMATCHED_APP = "_unmatched"
"""The app label of traffic no app claims; its organization is OPERATOR."""
PROXY_DEVICE = "eth0"
"""The `device` of bytes the proxy carried to and from an instance, as Fly's dashboards expect it."""
HOST_ETH0 = "host-eth0"
"""The machine's own interface of that name."""

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""Upper bounds in seconds, inclusive; +Inf comes after them (Fly's "Hooking Up Fly Metrics")."""
LAG_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
GC_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
WORK_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric name and everything that is fixed about it."""

    name: str
    type: FamilyType
    help: str
    labels: tuple[str, ...]
    unit: str = ""
    """"seconds", "bytes" or "". What is in seconds stands in cells as whole nanoseconds."""
    buckets: tuple[float, ...] | None = None
    """Histograms only: upper bounds without +Inf."""
    derived_from: str | None = None
    """A counter that is the sum of that histogram's buckets: it has no cell of its own."""
    rests_at_zero: bool = False
    """A gauge that reads 0, instead of ending, when the worker that moved it is gone."""
    told: bool = False
    """A counter another process keeps and tells anew to each telemetry: what a dead one was told is not kept."""

    @property
    def cell_count(self) -> int:
        """Cells one label set takes: buckets, +Inf and the sum for a histogram, 0 for what is derived, else 1."""
        if self.derived_from is not None:
            return 0
        return 1 if self.buckets is None else len(self.buckets) + 2

    @property
    def in_nanoseconds(self) -> bool:
        """Whether its cells hold nanoseconds."""
        return self.unit == "seconds"


def le_text(bound: float) -> str:
    """A bucket's bound as Fly spells it: 0.005 ... 0.5, 1, 5 ... 120."""
    return f"{bound:g}"


_EDGE = ("app", "region", "host", "proxy_id")
_APP = ("app", "region", "host", "instance", "proxy_id")
_INSTANCE = ("app", "region", "host", "instance")
_PROCESS = ("process", "worker")

_FLY = (
    Family(
        "fly_edge_http_responses_count",
        "counter",
        "HTTP responses the front door gave to clients, its own answers included.",
        (*_EDGE, "status"),
        derived_from="fly_edge_http_response_time_seconds",
    ),
    Family(
        "fly_edge_http_response_time_seconds",
        "histogram",
        "From the first byte of a request's head to the last byte of its response handed to the kernel; "
        "upgrades and event streams until their response head.",
        (*_EDGE, "status"),
        unit="seconds",
        buckets=BUCKETS,
    ),
    Family("fly_edge_tcp_connects_count", "counter", "Client connections, by the app of their first request.", _EDGE),
    Family("fly_edge_tcp_disconnects_count", "counter", "Client connections that ended.", _EDGE),
    Family("fly_edge_data_out", "counter", "Bytes sent to clients, heads included.", _EDGE, unit="bytes"),
    Family("fly_edge_data_in", "counter", "Bytes received from clients, heads included.", _EDGE, unit="bytes"),
    Family(
        "fly_edge_error_count",
        "counter",
        "Faults the front door answered or logged, by the code it also sends in Flyproxy-Error.",
        (*_EDGE, "code"),
    ),
    Family(
        "fly_app_concurrency",
        "gauge",
        "Requests or connections in flight to an instance; always there, 0 included.",
        _APP,
        rests_at_zero=True,
    ),
    Family(
        "fly_app_http_responses_count",
        "counter",
        "HTTP responses an instance gave.",
        (*_APP, "status"),
        derived_from="fly_app_http_response_time_seconds",
    ),
    Family(
        "fly_app_http_response_time_seconds",
        "histogram",
        "From the request sent to an instance to the last byte of its response.",
        (*_APP, "status"),
        unit="seconds",
        buckets=BUCKETS,
    ),
    Family(
        "fly_app_connect_time_seconds",
        "histogram",
        "Time it took to connect to an instance.",
        _APP,
        unit="seconds",
        buckets=BUCKETS,
    ),
    Family("fly_app_tcp_connects_count", "counter", "Connections opened to an instance.", _APP),
    Family("fly_app_tcp_disconnects_count", "counter", "Connections to an instance that ended.", _APP),
    Family("fly_instance_up", "gauge", "1 while the instance is part of the configuration.", _INSTANCE),
    Family(
        "fly_instance_net_recv_bytes",
        "counter",
        "Bytes the front door carried to an instance.",
        (*_INSTANCE, "device"),
        unit="bytes",
    ),
    Family(
        "fly_instance_net_sent_bytes",
        "counter",
        "Bytes the front door carried from an instance.",
        (*_INSTANCE, "device"),
        unit="bytes",
    ),
)

_MEMORY = {
    "mem_total": "Memory of the machine.",
    "mem_free": "Memory nothing uses.",
    "mem_available": "Memory that can be had without swapping.",
    "buffers": "Buffers of block devices.",
    "cached": "Cached files.",
    "swap_cached": "Memory that is in swap as well.",
    "active": "Memory used of late.",
    "inactive": "Memory not used of late.",
    "swap_total": "Swap of the machine.",
    "swap_free": "Swap nothing uses.",
    "dirty": "Memory waiting to be written.",
    "writeback": "Memory being written.",
    "slab": "The kernel's own structures.",
    "shmem": "Shared memory and tmpfs.",
    "vmalloc_total": "The kernel's address space for vmalloc.",
    "vmalloc_used": "What of it is used.",
    "vmalloc_chunk": "The largest free piece of it.",
}
_DISK = {
    "reads_completed": "Reads that ended.",
    "reads_merged": "Reads that were merged with a neighbour.",
    "sectors_read": "Sectors read, of 512 bytes each.",
    "time_reading": "Time all reads took, milliseconds.",
    "writes_completed": "Writes that ended.",
    "writes_merged": "Writes that were merged with a neighbour.",
    "sectors_written": "Sectors written, of 512 bytes each.",
    "time_writing": "Time all writes took, milliseconds.",
    "time_io": "Time the device was busy, milliseconds.",
    "time_io_weighted": "Time the device was busy times requests in progress, milliseconds.",
}
_NET = {
    "recv_packets": "Packets an interface received.",
    "recv_errs": "Packets received broken.",
    "recv_drop": "Packets received and dropped.",
    "recv_fifo": "Overruns of the receive buffer.",
    "recv_frame": "Framing errors.",
    "recv_compressed": "Compressed packets received.",
    "recv_multicast": "Multicast packets received.",
    "sent_packets": "Packets an interface sent.",
    "sent_errs": "Packets that could not be sent.",
    "sent_drop": "Packets dropped instead of sent.",
    "sent_fifo": "Overruns of the send buffer.",
    "sent_colls": "Collisions.",
    "sent_carrier": "Losses of the carrier.",
    "sent_compressed": "Compressed packets sent.",
}
_FILESYSTEM = {
    "blocks": "Blocks of a filesystem.",
    "block_size": "Bytes of one block.",
    "blocks_free": "Blocks nothing uses.",
    "blocks_avail": "Blocks that are free for everybody, not for root alone.",
}
_HOST = (
    *(
        Family(f"fly_instance_memory_{name}", "gauge", words, _INSTANCE, unit="bytes")
        for name, words in _MEMORY.items()
    ),
    Family(
        "fly_instance_memory_pressure_some",
        "gauge",
        "Pressure stall: percent of the time some task waited for memory (avg*), and microseconds of it since boot "
        "(total).",
        (*_INSTANCE, "pressure_duration"),
    ),
    Family(
        "fly_instance_memory_pressure_full",
        "gauge",
        "The same, for the time all tasks waited.",
        (*_INSTANCE, "pressure_duration"),
    ),
    Family(
        "fly_instance_load_average", "gauge", "Tasks running or waiting, mean over 1, 5, 15.", (*_INSTANCE, "minutes")
    ),
    Family("fly_instance_cpu", "counter", "CPU time by mode, centiseconds.", (*_INSTANCE, "cpu_id", "mode")),
    *(Family(f"fly_instance_disk_{name}", "counter", words, (*_INSTANCE, "device")) for name, words in _DISK.items()),
    Family("fly_instance_disk_io_in_progress", "gauge", "Requests in progress.", (*_INSTANCE, "device")),
    *(Family(f"fly_instance_net_{name}", "counter", words, (*_INSTANCE, "device")) for name, words in _NET.items()),
    Family("fly_instance_filefd_allocated", "gauge", "Open files of the machine.", _INSTANCE),
    Family("fly_instance_filefd_maximum", "gauge", "Most files that may be open.", _INSTANCE),
    *(
        Family(f"fly_instance_filesystem_{name}", "gauge", words, (*_INSTANCE, "mount"))
        for name, words in _FILESYSTEM.items()
    ),
    Family("fly_instance_uptime_seconds", "gauge", "Time since the machine started.", _INSTANCE, unit="seconds"),
)

_FRONT_DOOR = (
    Family(
        "flyproxy_build_info",
        "gauge",
        "1, labelled with what is running; `path`: typed or pure.",
        ("version", "python", "path"),
    ),
    Family("flyproxy_limit_reached_total", "counter", "Times a bound was reached.", ("limit", *_PROCESS)),
    Family("flyproxy_edge_connections", "gauge", "Client connections open now.", _PROCESS),
    Family(
        "flyproxy_event_loop_lag_seconds",
        "histogram",
        "How late the event loop ran a timer; with `workers: 0` of each loop of the one process.",
        _PROCESS,
        unit="seconds",
        buckets=LAG_BUCKETS,
    ),
    Family(
        "flyproxy_gc_pause_seconds",
        "histogram",
        "How long the garbage collector stopped the process, by the generation it collected; with `workers: 0` the "
        "one process is the supervisor.",
        (*_PROCESS, "generation"),
        unit="seconds",
        buckets=GC_BUCKETS,
    ),
    Family("flyproxy_cells_used", "gauge", "Cells of a process' segment that have a label set.", _PROCESS),
    Family("flyproxy_cells_capacity", "gauge", "Cells a process' segment has room for.", _PROCESS),
    Family(
        "flyproxy_access_log_dropped_total", "counter", "Access log lines dropped because writing lagged.", _PROCESS
    ),
    Family("flyproxy_config_generation", "gauge", "Number of the configuration that is in force.", ()),
    Family("flyproxy_config_last_reload_successful", "gauge", "1 if the last reload took effect, else 0.", ()),
    Family(
        "flyproxy_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When a configuration last took effect, Unix time.",
        (),
        unit="seconds",
    ),
    Family(
        "flyproxy_child_restarts_total",
        "counter",
        "Children that died and were started again.",
        ("process",),
        told=True,
    ),
)

_TELEMETRY = (
    Family("flyproxy_store_rows_appended_total", "counter", "Rows made durable in the store's log.", ()),
    Family("flyproxy_store_append_failures_total", "counter", "Appends the store refused; their samples are lost.", ()),
    Family(
        "flyproxy_store_append_duration_seconds",
        "histogram",
        "Time one append took until it was durable.",
        (),
        unit="seconds",
        buckets=WORK_BUCKETS,
    ),
    Family("flyproxy_store_rows_sealed_total", "counter", "Rows that went from the store's log into chunks.", ()),
    Family("flyproxy_store_samples_sealed_total", "counter", "Samples that were sealed into chunks.", ()),
    Family("flyproxy_store_chunks_sealed_total", "counter", "Chunks that were sealed.", ()),
    Family(
        "flyproxy_store_chunk_bytes_total",
        "counter",
        "Bytes of the chunks that were sealed, compressed.",
        (),
        unit="bytes",
    ),
    Family(
        "flyproxy_store_seal_duration_seconds",
        "histogram",
        "Time one step of sealing took: an append waits for one at most.",
        (),
        unit="seconds",
        buckets=WORK_BUCKETS,
    ),
    Family("flyproxy_store_frames_merged_total", "counter", "Short-lived frames that were put together.", ()),
    Family("flyproxy_store_rows_deleted_total", "counter", "Rows of the store's log that retention deleted.", ()),
    Family("flyproxy_store_chunks_deleted_total", "counter", "Chunks that retention deleted.", ()),
    Family(
        "flyproxy_store_size_retentions_total",
        "counter",
        "Times the oldest samples went because the store outgrew telemetry.retention_size.",
        (),
    ),
    Family("flyproxy_store_bytes", "gauge", "Size of the store on disk.", (), unit="bytes"),
    Family("flyproxy_store_free_bytes", "gauge", "Part of flyproxy_store_bytes that is free to use.", (), unit="bytes"),
    Family("flyproxy_store_log_rows", "gauge", "Rows in the store's log that are not sealed yet, at most.", ()),
    Family("flyproxy_store_chunks", "gauge", "Chunks in the store.", ()),
    Family("flyproxy_store_frames", "gauge", "Frames in the store.", ()),
    Family("flyproxy_store_series", "gauge", "Series the store knows, those that ended included.", ()),
    Family("flyproxy_store_damaged_rows_total", "counter", "Rows skipped because their checksum was wrong.", ()),
    Family("flyproxy_queries_total", "counter", "Queries answered, by kind and HTTP status.", ("kind", "status")),
    Family(
        "flyproxy_query_duration_seconds",
        "histogram",
        "Time from a query's arrival to its answer, waiting included.",
        ("kind",),
        unit="seconds",
        buckets=WORK_BUCKETS,
    ),
    Family(
        "flyproxy_api_refused_total",
        "counter",
        "Requests to the API without a good token (401), without the right (403), or one too many (429).",
        ("status",),
    ),
    Family("flyproxy_queries_in_flight", "gauge", "Queries waiting or being answered.", ()),
    Family(
        "flyproxy_snapshot_duration_seconds",
        "histogram",
        "Time it took to sum all segments into one beat's batches.",
        (),
        unit="seconds",
        buckets=WORK_BUCKETS,
    ),
    Family("flyproxy_segments", "gauge", "Segments being summed.", ()),
    Family("flyproxy_segment_records_skipped", "gauge", "Records in segments that could not be read.", ()),
    Family("flyproxy_scrape_targets", "gauge", "The apps' scrape targets, by state: up, down, unknown.", ("state",)),
    Family(
        "flyproxy_scrape_samples_refused_total",
        "counter",
        "Samples of apps' pages left out, by reason: reserved_name (fly_*, flyproxy_*, up, scrape_*), duplicate, "
        "series_limit (new series beyond scrape_limits.series).",
        ("reason",),
    ),
    Family(
        "flyproxy_scrapes_missed_total",
        "counter",
        "Scrapes left out because the target's last one was not over, or not stored, when its next beat came.",
        (),
    ),
)

_PROCESSES = (
    Family("process_cpu_seconds_total", "counter", "CPU time, user and system.", _PROCESS, unit="seconds"),
    Family("process_virtual_memory_bytes", "gauge", "Virtual memory.", _PROCESS, unit="bytes"),
    Family("process_resident_memory_bytes", "gauge", "Resident memory.", _PROCESS, unit="bytes"),
    Family("process_start_time_seconds", "gauge", "When the process started, Unix time.", _PROCESS, unit="seconds"),
    Family("process_open_fds", "gauge", "Open file descriptors.", _PROCESS),
    Family("process_max_fds", "gauge", "Most file descriptors it may open.", _PROCESS),
    Family(
        "python_gc_objects_collected_total",
        "counter",
        "Objects the garbage collector freed.",
        (*_PROCESS, "generation"),
    ),
    Family(
        "python_gc_objects_uncollectable_total",
        "counter",
        "Objects the garbage collector found and could not free.",
        (*_PROCESS, "generation"),
    ),
    Family(
        "python_gc_collections_total",
        "counter",
        "Times a generation was collected.",
        (*_PROCESS, "generation"),
    ),
)

FAMILIES: dict[str, Family] = {
    family.name: family for family in (*_FLY, *_HOST, *_FRONT_DOOR, *_TELEMETRY, *_PROCESSES)
}
"""By name, in the order they are documented and exposed."""

DERIVED: dict[str, Family] = {
    family.derived_from: family for family in FAMILIES.values() if family.derived_from is not None
}
"""The counter that a histogram's buckets add up to, by the histogram's name."""

LIMITS: dict[str, str] = {
    "access_log_lines": "lines waiting to be written",
    "api_answer_bytes": "bytes of one answer of the API (128 MiB)",
    "api_body_bytes": "body of a request to the API",
    "api_body_timeout": "time the body of a request to the API may take",
    "api_connections": "connections to the telemetry address",
    "api_connections_of_one": "connections to the telemetry address from one other address (128)",
    "api_head_timeout": "time the first head on a connection to the telemetry address may take",
    "api_match_count": "`match[]` of one request",
    "api_parameters": "parameters of one request to the API",
    "api_points": "points one range query may return per series",
    "api_queries_waiting": "queries of one organization that wait in line",
    "api_query_timeout": "time one query may take",
    "api_unread_bytes": "bytes of one organization's large answers that wait to be read (128 MiB)",
    "api_url_bytes": "URL of a request to the API",
    "api_write_timeout": "time an answer of the API waits for a reader that takes nothing",
    "body_bytes": "limits.body_bytes",
    "body_timeout": "timeouts.body, or the minimum rate",
    "cells": "cells of one segment: a new label set was not counted",
    "chunk_extension_bytes": "chunk extensions of one body (4 KiB)",
    "chunk_line_bytes": "a chunk's size line (256 bytes)",
    "connect_timeout": "timeouts.connect",
    "connections": "limits.connections",
    "descriptors": "open files of an edge worker (RLIMIT_NOFILE): callers were refused, idle connections closed",
    "drain_timeout": "timeouts.drain",
    "head_bytes": "limits.head_bytes (431, or 502 for an instance's)",
    "head_timeout": "timeouts.head",
    "header_count": "limits.header_count (431, or 502 for an instance's)",
    "host_cpus": "CPUs of the machine in fly_instance_cpu (64)",
    "host_disks": "disks of the machine in fly_instance_disk_* (32)",
    "host_filesystem_time": "time measuring the machine's filesystems may take (0.5 s)",
    "host_interfaces": "interfaces of the machine in fly_instance_net_* (32)",
    "host_mounts": "filesystems of the machine in fly_instance_filesystem_* (32)",
    "host_series": "series of fly_instance_* read from /proc (100,000): the instances beyond have none",
    "idle_connections": "idle connections kept to one instance (256)",
    "idle_timeout": "timeouts.idle",
    "interim_answers": "1xx answers to one request (8)",
    "leading_empty_lines": "empty lines before a request (2)",
    "line_bytes": "limits.line_bytes (414 or 431, or 502 for an instance's)",
    "pipes": "pipes for splicing (64, fewer with few descriptors): the connection or body is copied instead",
    "proxy_header_bytes": "bytes of a PROXY header (4096; 107 of version 1)",
    "query_memory": "telemetry.query_memory",
    "query_samples": "telemetry.query_samples",
    "query_timeout": "time a query worker may take for one query",
    "response_timeout": "timeouts.response",
    "retries": "instances dialled for one request (5)",
    "scrape_body_bytes": "a page of an app's metrics, decompressed",
    "scrape_framing": "1xx answers to one scrape (8), or bytes around its page (1 MiB, and as many as the page has)",
    "scrape_labels": "labels of a scraped series, and their sizes",
    "scrape_large_pages": "pages larger than 256 KiB that are fetched or read at once (2): a slow one was given up",
    "scrape_lines": "lines on one page of an app's metrics",
    "scrape_samples": "samples on one page of an app's metrics",
    "scrape_series": "different series one scrape target may have within an hour: new ones were left out",
    "scrape_timeout": "time one scrape may take",
    "splices": "large bodies moved by splice at a time (1024, fewer with few descriptors): the body is copied instead",
    "trailer_bytes": "trailers of one body (8 KiB)",
    "write_timeout": "timeouts.write",
}
"""Values of `limit` in flyproxy_limit_reached_total, and the bound each one is about."""


def markdown() -> str:
    """docs/metrics.md."""
    sections = (
        (
            "Fly's families",
            "Names, types, labels and buckets as Fly has them; `fly_edge_*` is the door's side, `fly_app_*` the "
            "instance's (labels `region` and `host` are the instance's own there).",
            _FLY,
        ),
        (
            "The host",
            "Read from `/proc` for every instance whose address is one of this machine's own, at most every 5 seconds: "
            "what they say is the machine's, so instances of one machine say the same. Counters are the kernel's and "
            "began when it started. `device` is a whole disk (no partitions, loop or ram devices) or an interface by "
            f"the kernel's name (not `lo` and `veth*`), and the machine's own `{PROXY_DEVICE}` is `{HOST_ETH0}`. There "
            "are no `net_*_bytes` of the machine's interfaces: a sum over an app's devices must be the app's, as "
            f"`{PROXY_DEVICE}` above is. `mount` is a filesystem on a local disk. `telemetry.instance_metrics: false` "
            "turns all of them off.",
            _HOST,
        ),
        ("The front door itself", f"Organization `{OPERATOR}`, like all below.", _FRONT_DOOR),
        ("Telemetry", "What the process that stores and answers counts.", _TELEMETRY),
        ("Processes", "Of every process of the front door, read from the outside or counted inside.", _PROCESSES),
    )
    lines = ["# Metrics", "", "Made by `python -m flyproxy.instrument.catalog`; a test compares.", ""]
    lines += [
        f"Response and connect times fall into the buckets `{' '.join(le_text(bound) for bound in BUCKETS)} +Inf`",
        "(seconds), and `le` is spelled so in every format. OpenMetrics' counters must end in `_total`, so there Fly's",
        "are `unknown`. `_count` of a histogram and `*_http_responses_count`",
        "are sums of the buckets and always agree with them. `worker` is the number of an edge or query worker and",
        "is missing on other processes.",
    ]
    for title, words, families in sections:
        lines += ["", f"## {title}", "", words, "", "| name | type | labels | what |", "|---|---|---|---|"]
        lines += [_row(family) for family in families]
    lines += [
        "",
        "## Limits",
        "",
        "Values of `limit` in `flyproxy_limit_reached_total`:",
        "",
        "| limit | bound |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {words} |" for name, words in LIMITS.items()]
    return "\n".join(lines) + "\n"


def _row(family: Family) -> str:
    labels = " ".join(f"`{label}`" for label in family.labels)
    words = family.help
    if family.buckets is not None and family.buckets is not BUCKETS:
        words += f" Buckets: {' '.join(le_text(bound) for bound in family.buckets)}."
    return f"| `{family.name}` | {family.type} | {labels} | {words} |"


if __name__ == "__main__":
    print(markdown(), end="")
