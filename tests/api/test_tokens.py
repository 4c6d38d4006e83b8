"""Tokens: minted once, hashed at rest, revoked, expired, and seen by a running proxy at once."""

import os
import stat
import threading
from pathlib import Path

import pytest

from flyproxy.api.tokens import FILE_BYTES_MAX, TOKENS_MAX, Scope, TokenFile, TokenFileError
from flyproxy.clock import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tokens"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(path: Path, clock: ManualClock) -> TokenFile:
    return TokenFile(path, clock)


def test_a_minted_token_is_known_and_says_what_it_is(tokens: TokenFile) -> None:
    token = tokens.mint("personal", Scope.READ)
    assert token.startswith("fp_personal_")
    grant = tokens.check(token)
    assert grant is not None
    assert (grant.organization, grant.scope) == ("personal", Scope.READ)


@pytest.mark.parametrize("stranger", ["", "fp_personal_0", "x" * 100_000, "\udcff", "fp_personal_" + "0" * 64])
def test_a_strange_token_is_not_known(tokens: TokenFile, stranger: str) -> None:
    tokens.mint("personal", Scope.READ)
    assert tokens.check(stranger) is None


def test_without_a_file_nobody_is_known(tokens: TokenFile) -> None:
    assert tokens.check("fp_personal_0") is None
    assert tokens.list() == ()


def test_the_file_holds_no_token_and_is_for_its_owner_alone(tokens: TokenFile, path: Path) -> None:
    token = tokens.mint("personal", Scope.READ)
    assert token not in path.read_text()
    assert token.rpartition("_")[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_every_token_is_another(tokens: TokenFile) -> None:
    assert len({tokens.mint("personal", Scope.READ) for _ in range(20)}) == 20


def test_a_running_proxy_sees_what_the_command_line_writes(tokens: TokenFile, path: Path, clock: ManualClock) -> None:
    elsewhere = TokenFile(path, clock)
    token = elsewhere.mint("personal", Scope.WRITE)
    assert tokens.check(token) is not None
    elsewhere.revoke(token)
    assert tokens.check(token) is None
    second = elsewhere.mint("personal", Scope.READ)
    path.unlink()
    assert tokens.check(second) is None


def test_a_token_is_revoked_by_its_id_or_by_itself(tokens: TokenFile) -> None:
    first, second = tokens.mint("personal", Scope.READ), tokens.mint("personal", Scope.READ)
    known = tokens.check(first)
    assert known is not None
    assert tokens.revoke(known.id) == known
    assert tokens.check(first) is None
    assert tokens.check(second) is not None
    assert tokens.revoke(second) is not None
    assert tokens.revoke(second) is None


def test_a_short_lived_token_ends_and_leaves_the_file(tokens: TokenFile, clock: ManualClock, path: Path) -> None:
    token = tokens.mint("personal", Scope.READ, lifetime_s=60)
    clock.advance(59.9)
    assert tokens.check(token) is not None
    clock.advance(0.2)
    assert tokens.check(token) is None
    tokens.mint("personal", Scope.READ)
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("scope", "own", "write", "other"),
    [(Scope.READ, True, False, False), (Scope.WRITE, True, True, False), (Scope.OPERATOR, True, True, True)],
)
def test_a_scope_allows_so_much(tokens: TokenFile, scope: Scope, own: bool, write: bool, other: bool) -> None:
    grant = tokens.check(tokens.mint("personal", scope))
    assert grant is not None
    assert grant.allows("personal") is own
    assert grant.allows("personal", Scope.WRITE) is write
    assert grant.allows("shop") is other
    assert grant.allows("personal", Scope.OPERATOR) is (scope is Scope.OPERATOR)


@pytest.mark.parametrize("slug", ["", "a b", "a/b", "-a", "a" * 64, "ü"])
def test_an_organization_must_be_a_name(tokens: TokenFile, slug: str) -> None:
    with pytest.raises(TokenFileError, match="no organization's name"):
        tokens.mint(slug, Scope.READ)


RECORD = '{"id":"a","organization":"o","scope":"read","sha256":"' + "0" * 64 + '","created_ms":1}'
DAMAGED = [
    "x",
    "{}",
    "[]",
    "[" * 100_000,
    "\0",
    "\ufeff" + RECORD,
    RECORD + RECORD,
    RECORD[:40],
    RECORD.replace("read", "king"),
    RECORD.replace("0" * 64, "0" * 63),
    RECORD.replace(":1}", ":1e999}"),
    RECORD.replace(":1}", ":1000000000000000}"),
    RECORD.replace(":1}", ':1,"expires_ms":"never"}'),
    RECORD.replace(":1}", ':1,"expires_ms":-1}'),
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_lets_nobody_in_and_keeps_nobody_out(
    tokens: TokenFile, path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, later = tokens.mint("personal", Scope.READ), tokens.mint("personal", Scope.READ)
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    for _ in range(2):
        assert tokens.check(before) is not None
        assert tokens.check(later) is not None
        assert tokens.check("anything") is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}:2: not a token's record; take the line out"
    ], "it is said once"
    for writing in (tokens.list, lambda: tokens.mint("personal", Scope.READ), lambda: tokens.revoke(before)):
        with pytest.raises(TokenFileError, match=r"tokens:2: not a token's record"):
            writing()
    assert line in path.read_text(), "nothing is written over what is not understood"


def test_what_is_no_tokens_file_is_named(path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\n" * (FILE_BYTES_MAX + 1))
    with pytest.raises(TokenFileError, match="larger than 1048576 bytes"):
        TokenFile(path, clock).check("anything")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(TokenFileError, match="not a file"):
        TokenFile(path, clock).check("anything")
    assert len(caplog.records) == 2, "the operator's log says why"


def test_what_root_makes_is_the_folders_owners(tmp_path: Path, clock: ManualClock) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(tmp_path, 65534, 65534)
    TokenFile(tmp_path / "tokens", clock).mint("personal", Scope.READ)
    assert {(entry.name, entry.stat().st_uid) for entry in tmp_path.iterdir()} == {
        ("tokens", 65534),
        ("tokens.lock", 65534),
    }


def test_an_unreadable_place_is_named(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenFileError, match="cannot write in"):
        TokenFile(tmp_path / "file" / "tokens", clock).mint("personal", Scope.READ)
    (tmp_path / "folder").mkdir()
    with pytest.raises(TokenFileError, match="cannot read"):
        TokenFile(tmp_path / "folder", clock).list()


def test_the_file_is_bounded(tokens: TokenFile, path: Path) -> None:
    tokens.mint("personal", Scope.READ)
    path.write_text(path.read_text() * TOKENS_MAX)
    with pytest.raises(TokenFileError, match="revoke one first"):
        tokens.mint("personal", Scope.READ)


def test_two_writers_lose_nothing(path: Path, clock: ManualClock) -> None:
    def mint_some() -> None:
        for _ in range(10):
            TokenFile(path, clock).mint("personal", Scope.READ)

    threads = [threading.Thread(target=mint_some) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(TokenFile(path, clock).list()) == 30


def test_a_file_put_back_with_its_old_time_and_size_is_read_again(tokens: TokenFile, path: Path) -> None:
    token = tokens.mint("personal", Scope.READ)
    grant = tokens.check(token)
    assert grant is not None
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(grant.sha256.encode(), b"0" * 64))
    while path.stat().st_ctime_ns == before.st_ctime_ns or path.stat().st_mtime_ns != before.st_mtime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tokens.check(token) is None
