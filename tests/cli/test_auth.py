"""`flyproxy auth`: what it prints, and what stays in the data directory."""

import json
from pathlib import Path

import pytest

from flyproxy.api.tokens import Scope, TokenFile
from flyproxy.cli.main import run
from flyproxy.clock import SystemClock

Config = Path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "flyproxy.yaml"
    path.write_text("organizations: [{slug: personal}, {slug: shop}]\ntelemetry: {data_dir: store}\n")
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "store" / "tokens", SystemClock())


def printed(capsys: pytest.CaptureFixture[str], config: Config, *arguments: str, code: int = 0) -> str:
    """Standard output of the command, or its error output when it must fail."""
    assert run(["auth", *arguments, "-c", str(config)]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


@pytest.mark.parametrize(
    ("arguments", "organization", "scope"),
    [
        ([], "personal", Scope.READ),
        (["--read-only"], "personal", Scope.READ),
        (["--org", "shop", "--write"], "shop", Scope.WRITE),
        (["--operator"], "_operator", Scope.OPERATOR),
        (["--operator", "--org", "_operator"], "_operator", Scope.OPERATOR),
    ],
)
def test_token_prints_just_the_token(
    capsys: pytest.CaptureFixture[str],
    config: Config,
    tokens: TokenFile,
    arguments: list[str],
    organization: str,
    scope: Scope,
) -> None:
    token = printed(capsys, config, "token", *arguments)
    assert token == token.strip() + "\n"
    grant = tokens.check(token.strip())
    assert grant is not None
    assert (grant.organization, grant.scope) == (organization, scope)


def test_an_unknown_organization_is_a_usage_error(capsys: pytest.CaptureFixture[str], config: Config) -> None:
    assert "did you mean 'shop'?" in printed(capsys, config, "token", "--org", "shpo", code=2)
    assert "there is personal, shop" in printed(capsys, config, "token", "--org", "zzz", code=2)
    assert "every organization" in printed(capsys, config, "token", "--org", "shop", "--operator", code=2)


def test_list_shows_ids_but_no_tokens(capsys: pytest.CaptureFixture[str], config: Config, tokens: TokenFile) -> None:
    token = printed(capsys, config, "token").strip()
    shown = printed(capsys, config, "list")
    (grant,) = tokens.list()
    assert shown.splitlines()[0].split() == ["id", "organization", "scope", "created", "expires"]
    assert grant.id in shown
    assert token not in shown
    assert grant.sha256 not in shown
    assert json.loads(printed(capsys, config, "list", "--json"))[0]["id"] == grant.id


def test_an_empty_list_is_said_on_the_side(capsys: pytest.CaptureFixture[str], config: Config) -> None:
    assert printed(capsys, config, "list") == ""
    assert printed(capsys, config, "list", "--json") == "[]\n"


def test_revoke_ends_a_token(capsys: pytest.CaptureFixture[str], config: Config, tokens: TokenFile) -> None:
    token = printed(capsys, config, "token").strip()
    (grant,) = tokens.list()
    printed(capsys, config, "revoke", grant.id)
    assert tokens.check(token) is None
    assert "no such token" in printed(capsys, config, "revoke", grant.id, code=1)


def test_a_bad_configuration_is_named(capsys: pytest.CaptureFixture[str], config: Config) -> None:
    config.write_text("nonsense: 1\n")
    assert "flyproxy.yaml:1:1: error: nonsense" in printed(capsys, config, "token", code=1)


def test_a_damaged_token_file_is_named(capsys: pytest.CaptureFixture[str], config: Config, tokens: TokenFile) -> None:
    printed(capsys, config, "token")
    tokens.path.write_text("x\n")
    assert "tokens:1: not a token's record" in printed(capsys, config, "list", code=1)
