"""Where the keys and values of a TOML text stand."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.config.faults import Path
from flyproxy.config.toml_places import find_places

TEXT = """\
# a comment with = and [brackets]
app = "hello" # [no.table]
"quoted key" = 'literal # no comment'
a.b . "c.d" = 1
when = 1979-05-27 07:32:00
long = \"\"\"
[not.a.table]
key = "value" \\\""" still \"\"\"\"\"
raw = '''
x = 1
''' # done

[http_service]
  internal_port = 8080
  concurrency = { type = "requests", limits = { soft_limit = 20 } }
  processes = [
    "web", # the first ]
    "worker",
  ]

[[services]]
protocol = "tcp"
[[services.ports]]
port = 80
[[services.ports]]
port = 443
handlers = ["tls", "http"]
[[services]]
[services.concurrency]
type = "connections"
[[services.ports]]
port = 5432

[ deep . er ]
x = -1_000
"""


def place(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    places = find_places(TEXT)
    key, value = places.keys[path], places.values[path]
    return (key.line + 1, key.column + 1), (value.line + 1, value.column + 1)


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("app",), (2, 1), (2, 7)),
        (("quoted key",), (3, 1), (3, 16)),
        (("a", "b", "c.d"), (4, 7), (4, 15)),
        (("when",), (5, 1), (5, 8)),
        (("long",), (6, 1), (6, 8)),
        (("raw",), (9, 1), (9, 7)),
        (("http_service",), (13, 2), (13, 1)),
        (("http_service", "internal_port"), (14, 3), (14, 19)),
        (("http_service", "concurrency", "type"), (15, 19), (15, 26)),
        (("http_service", "concurrency", "limits", "soft_limit"), (15, 49), (15, 62)),
        (("services", 0, "ports", 1, "handlers"), (27, 1), (27, 12)),
        (("services", 1), (28, 3), (28, 1)),
        (("services", 1, "concurrency", "type"), (30, 1), (30, 8)),
        (("services", 1, "ports", 0, "port"), (32, 1), (32, 8)),
        (("deep", "er", "x"), (35, 1), (35, 5)),
    ],
)
def test_a_key_and_its_value_are_found(path: Path, key: tuple[int, int], value: tuple[int, int]) -> None:
    assert place(path) == (key, value)


def test_elements_of_an_array_have_their_own_places() -> None:
    values = find_places(TEXT).values
    assert [(values[("http_service", "processes", i)].line + 1) for i in (0, 1)] == [17, 18]
    assert values[("services", 0, "ports", 1, "handlers", 1)].column + 1 == 20


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    """Every path of what tomllib made of a text, but the root."""
    found = {path} if path else set()
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= paths_of(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths_of(inner, (*path, index))
    return found


def test_every_value_tomllib_has_is_found_and_no_other() -> None:
    assert set(find_places(TEXT).values) == paths_of(tomllib.loads(TEXT))


_PIECES = [
    "[a]\n", "[a.b]\n", "[[t]]\n", "[[t.u]]\n", "[t.v]\n", "x = 1\n", "y = 'a'\n", 'z = "\\"#"\n', "p.q = 2.5\n",
    "l = [1, [2, 3], {k = 1}]\n", "i = {a = 1, b.c = [2]}\n", "# c = 1\n", "\n", "  ", 'm = """a\n"b" = 1\\""""\n',
    "n = '''\n''it''s'''\n", '"k.1" = true\n', "d = 2024-01-01T00:00:00Z # x\n", "e = {}\n", "f = [\n# ]\n1,\n]\n",
    "'' = 0\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_any_valid_text_has_a_place_for_each_of_its_values(text: str) -> None:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    places = find_places(text)
    assert set(places.values) == paths_of(tree)
    lines = text.split("\n")
    for path, mark in places.keys.items():
        name = path[-1] if isinstance(path[-1], str) else path[-2]
        assert str(name) in lines[mark.line][mark.column :]
