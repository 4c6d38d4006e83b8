"""The `flyproxy` command. A verb's file is imported when the verb is called, so `--help` costs no more than click."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

import click

from flyproxy import __version__
from flyproxy.errors import FlyproxyError

VERBS = {
    "auth": ("flyproxy.cli.auth:auth", "Mint, list and revoke tokens for the API."),
    "check": ("flyproxy.cli.check:check", "Name every fault of a configuration file, with its line."),
    "demo": ("flyproxy.cli.demo:demo", "Show a real app served in four regions, with its numbers."),
    "grafana": ("flyproxy.cli.grafana:grafana", "Connect Grafana: values to paste, dashboards, provisioning."),
    "query": ("flyproxy.cli.query:query", "Ask a running proxy in PromQL."),
    "run": ("flyproxy.cli.run:run", "Serve apps through the front door."),
    "tsdb": ("flyproxy.cli.tsdb:tsdb", "Samples in and out of the store, its density and integrity."),
}
"""Verb: where it is, and its line in `--help`."""

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_EXAMPLES = """\b
Examples:
  flyproxy run --to 5000
  flyproxy run -c flyproxy.yaml
  flyproxy check flyproxy.yaml
  flyproxy query 'sum by (region) (rate(fly_edge_http_responses_count))'
"""


class LazyGroup(click.Group):
    """A group whose verbs are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(VERBS)}"
            ctx.fail(f"no verb is called '{args[0]}'{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own way would import every verb for its first line.
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from flyproxy import extension

        click.echo(f"flyproxy {__version__} ({extension.words()})")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version, and which path runs: typed or pure.",
)
def cli() -> None:
    """A front door for apps, with the metrics built in.

    `flyproxy VERB --help` says more about a verb.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """The command's exit code: 0 ok, 1 it failed, 2 wrong usage, 130 on ^C."""
    try:
        result = cli.main(args=arguments, prog_name="flyproxy", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except FlyproxyError as error:
        # Several lines are a rendering of their own (the faults of a configuration).
        text = str(error)
        click.echo(text if "\n" in text else f"flyproxy: {text}", err=True)
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def main() -> None:
    """The console script."""
    sys.exit(run())
