"""`flyproxy tsdb`: samples in and out of the store as text, its density, its integrity, a copy of it."""

from __future__ import annotations

import click

from flyproxy.cli.tsdb_place import in_store

_ORG = click.option("--org", metavar="SLUG", help="The organization (default: the configuration's first).")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group()
def tsdb() -> None:
    """The store of a data directory: its samples as text, its density, its integrity.

    \b
    Examples:
      flyproxy tsdb export -o backfill.txt && promtool tsdb create-blocks-from openmetrics backfill.txt blocks
      flyproxy tsdb export --match 'fly_edge_http_responses_count{app="hello"}' --start 2026-11-22T00:00:00Z
      flyproxy tsdb import backfill.txt --data other
      flyproxy tsdb stats
      flyproxy tsdb check
      flyproxy tsdb backup /var/backups/flyproxy.db

    `export`, `stats`, `check` and `backup` work while a front door runs; `import` needs it stopped.
    """


@tsdb.command(name="export")
@click.option("--match", "selectors", metavar="SELECTOR", multiple=True, help="Only these series (repeat it for more).")
@click.option("--start", metavar="T", help="From this moment on (Unix seconds or RFC 3339).")
@click.option("--end", metavar="T", help="Up to this moment, it included.")
@click.option("-o", "--output", metavar="FILE", help="Default: standard output.")
@_ORG
@in_store
def export_command(
    selectors: tuple[str, ...],
    start: str | None,
    end: str | None,
    output: str | None,
    org: str | None,
    data: str | None,
    config: str | None,
) -> None:
    """Samples as OpenMetrics text with time stamps, as promtool's backfill takes it.

    \b
    Examples:
      flyproxy tsdb export -o backfill.txt
      flyproxy tsdb export --org work --match up --start 2026-11-22T00:00:00Z | zstd > up.txt.zst

    What a stale marker says has no spelling: a series that ended has no more samples.
    """
    from flyproxy.cli.tsdb_text import write_export

    write_export(selectors, start, end, output, org, data, config)


@tsdb.command(name="import")
@click.argument("file")
@_ORG
@in_store
def import_command(file: str, org: str | None, data: str | None, config: str | None) -> None:
    """Samples from text with time stamps: OpenMetrics (seconds, `# EOF` last) or Prometheus' (milliseconds).

    \b
    Examples:
      flyproxy tsdb import backfill.txt
      flyproxy tsdb import - --data data --org personal < backfill.txt

    Nothing is stored of a file with a fault. Samples older than the retention are left out and counted. The same file
    twice changes nothing.
    """
    from flyproxy.cli.tsdb_text import read_import

    read_import(file, org, data, config)


@tsdb.command(name="stats")
@click.option("--org", metavar="SLUG", help="Of this organization alone.")
@_JSON
@in_store
def stats_command(org: str | None, as_json: bool, data: str | None, config: str | None) -> None:
    """What the store holds and what it costs, in all and by organization.

    \b
    Examples:
      flyproxy tsdb stats
      flyproxy tsdb stats --json | jq .total.chunks.bytes_a_sample
    """
    from flyproxy.cli.tsdb_health import show_stats

    show_stats(org, as_json, data, config)


@tsdb.command(name="check")
@_JSON
@in_store
def check_command(as_json: bool, data: str | None, config: str | None) -> int:
    """Read and decode everything once; a sentence for every fault. Exit code 1 if there is one. Changes nothing.

    \b
    Examples:
      flyproxy tsdb check
      flyproxy tsdb check --data /var/backups/flyproxy
    """
    from flyproxy.cli.tsdb_health import show_check

    return show_check(as_json, data, config)


@tsdb.command(name="backup")
@click.argument("file")
@in_store
def backup_command(file: str, data: str | None, config: str | None) -> None:
    """A consistent, compact copy, while a front door runs or not. A file that is there is not overwritten.

    \b
    Examples:
      flyproxy tsdb backup /var/backups/flyproxy-$(date +%F).db

    To go back: stop the front door and put the copy in the place of DATA_DIR/store.db (without its -wal and -shm).
    """
    from flyproxy.cli.tsdb_health import make_backup

    make_backup(file, data, config)
