"""Mistakes a parser must not have, each as a change of one text: what the tests of this directory are worth.

A mutant is applied to a copy of flyproxy/http1; the cases and the oracles must notice it (test_mutants.py). Whoever
rewrites a line that stands here writes its mistake anew.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import flyproxy.http1
from tests.http1.case_files import load_all
from tests.http1.checks import check_request, check_response
from tests.http1.fuzz import play
from tests.http1.reading import Codec

SOURCES = Path(flyproxy.http1.__path__[0])
ROUNDS = ((2, 3000), (3, 3000))
"""Seeds, one with the usual bounds and one with small ones, and how many broken messages of each."""


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    which: int = 0
    """Of several places where the old text stands."""


MUTANTS = [
    Mutant("space-before-colon", "grammar", r']++):[ \t]*+("', r']++)[ \t]*:[ \t]*+("'),
    Mutant("lf-in-values", "grammar", r'_VALUE = rb"[\t\x20', r'_VALUE = rb"[\t\n\x20'),
    Mutant("cr-in-values", "grammar", r'_VALUE = rb"[\t\x20', r'_VALUE = rb"[\t\r\x20'),
    Mutant("nul-in-values", "grammar", r'_VALUE = rb"[\t\x20', r'_VALUE = rb"[\x00\t\x20'),
    Mutant("folded-lines", "grammar", 'rb"*+)")\nHEADER_LINE_IN', 'rb"*+(?:\\r\\n[ \\t][!-~]*)*)")\nHEADER_LINE_IN'),
    Mutant("signed-length", "grammar", 'rb"[0-9]{1,18}+"', 'rb"[+-]?[0-9]{1,18}+"'),
    Mutant("fragments-go-on", "grammar", r'_QUERY = rb"[!\"$-~]"', r'_QUERY = rb"[!-~]"'),
    Mutant("user-in-host", "grammar", 'rb"([0-9A-Za-z_-]{1,63}+', 'rb"([0-9A-Za-z_@-]{1,63}+'),
    Mutant("port-unbounded", "grammar", "int(port) > _PORT_MAX", "int(port) > 10 * _PORT_MAX"),
    Mutant("connect-goes-on", "grammar", '(b"CONNECT", b"TRACE")', '(b"TRACE",)'),
    Mutant("version-2-goes-on", "grammar", 'major != b"1"', 'major not in b"12"'),
    Mutant("get-star", "grammar", 'if method != b"OPTIONS":', "if not method:"),
    Mutant("half-octets", "grammar", "(?:%[0-9A-Fa-f]{2}", "(?:%[0-9A-Fa-f]{0,2}"),
    Mutant(
        "any-coding-that-ends-in-chunked", "fields", 'value.lower() == b"chunked"', 'value.lower().endswith(b"chunked")'
    ),
    Mutant("connection-names-framing", "fields", "option in _NEVER_NAMED or option in", "option in"),
    Mutant("connection-names-what-is-ours", "fields", " or option in self._owned", ""),
    Mutant("close-is-not-heard", "fields", 'b"close": CLOSE', 'b"close": 0'),
    Mutant("look-alikes-of-framing", "fields", "if alias in FRAMING:", "if not alias:"),
    Mutant(
        "look-alikes-of-ours",
        "fields",
        'return Field(DROP, name, b"", line) if alias in self._look_alikes else',
        "return",
    ),
    Mutant("claims-go-on", "fields", "dict.fromkeys(owned, OWNED) | ", ""),
    Mutant("keep-alive-goes-on", "fields", '    b"keep-alive": DROP,\n', ""),
    Mutant("h2c-goes-on", "fields", 'b"h2c" in protocols', 'value == b""'),
    Mutant("any-expectation", "fields", 'kind == EXPECT and value.lower() != b"100-continue"', "kind == -1"),
    Mutant("a-length-too-long-is-cut", "fields", "number=int(value))", "number=int(value[:4]))"),
    Mutant(
        "last-of-two-lengths",
        "framing",
        "if content_length >= 0:\n                raise",
        "if False:\n                raise",
    ),
    Mutant(
        "last-of-two-lengths-of-an-answer",
        "framing",
        "if content_length >= 0:\n                raise",
        "if False:\n                raise",
        1,
    ),
    Mutant(
        "both-framings",
        "framing",
        'if content_length >= 0:\n        raise HttpFault(400, "both',
        'if False:\n        raise HttpFault(400, "both',
    ),
    Mutant(
        "two-codings", "framing", "if coding is not None:\n                raise", "if False:\n                raise"
    ),
    Mutant(
        "two-codings-of-an-answer",
        "framing",
        "if coding is not None:\n                raise",
        "if False:\n                raise",
        1,
    ),
    Mutant("coding-in-http-1.0", "framing", "    if minor == 0:\n        raise", "    if False:\n        raise"),
    Mutant("any-coding", "framing", "if not coding.number:", "if False:"),
    Mutant("two-hosts", "framing", "if host is not None:\n                raise", "if False:\n                raise"),
    Mutant("no-host", "framing", "        if minor == 1:\n            raise", "        if False:\n            raise"),
    Mutant(
        "another-host-in-the-target", "framing", "            _check_agreement(authority, sent)", "            pass"
    ),
    Mutant("named-by-connection-goes-on", "framing", "lines = _without(lines, names)", "pass"),
    Mutant("named-by-connection-goes-on-in-answers", "framing", "lines = _without(lines, names)", "pass", 1),
    Mutant(
        "http-1.0-stays",
        "framing",
        "not options & CLOSE and (minor == 1 or bool(options & KEEP_ALIVE))",
        "not options & CLOSE",
    ),
    Mutant(
        "until-close-stays",
        "framing",
        "if content_length < 0 and coding is None:\n            keep_alive = False",
        "if False:\n            keep_alive = False",
    ),
    Mutant("head-answers-have-bodies", "framing", ' and request_method != b"HEAD"', ""),
    Mutant("204-with-a-length", "framing", "if coding is not None or content_length > 0:", "if coding is not None:"),
    Mutant("304-has-a-body", "framing", "frozenset((204, 304))", "frozenset((204,))"),
    Mutant(
        "101-without-upgrade", "framing", "elif upgrade is None or not options & UPGRADES or minor == 0:", "elif False:"
    ),
    Mutant(
        "line-bound-plus-one",
        "shape",
        "if first_line_bytes > limits.line_bytes:",
        "if first_line_bytes > limits.line_bytes + 1:",
    ),
    Mutant("head-bound-minus-one", "shape", "if size > limits.head_bytes:", "if size >= limits.head_bytes:"),
    Mutant(
        "count-bound-plus-one",
        "shape",
        "head.count(CRLF) > limits.header_count:",
        "head.count(CRLF) > limits.header_count + 1:",
    ),
    Mutant(
        "endless-empty-lines",
        "shape",
        "if start > 2 * limits.leading_empty_lines:",
        "if start > 3 * limits.leading_empty_lines:",
    ),
    Mutant(
        "chunk-size-0x",
        "body",
        '_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]',
        '_CHUNK_LINE = re.compile(rb"((?:0x)?[0-9A-Fa-f]',
    ),
    Mutant("chunk-size-with-spaces", "body", '{1,15}+)(" + _EXTENSIONS', '{1,15}+ *)(" + _EXTENSIONS'),
    Mutant(
        "chunk-size-of-any-length",
        "body",
        '_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15}+)',
        '_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,40}+)',
    ),
    Mutant("chunk-end-unread", "body", "if not wanted.startswith(got):", "if False:"),
    Mutant(
        "chunk-end-of-one-byte",
        "body",
        "self._state, self._left = _DATA_END, 2",
        "self._state, self._left = _DATA_END, 1",
    ),
    Mutant(
        "last-chunk-without-trailers",
        "body",
        "self._state, self._used = _TRAILER, 0",
        "self._state, self.complete = _DONE, True",
    ),
    Mutant(
        "framing-in-trailers", "body", "if match[1].lower().translate(AS_APPS_READ) in self._forbidden:", "if False:"
    ),
    Mutant("look-alikes-in-trailers", "body", ".translate(AS_APPS_READ)", ""),
    Mutant("endless-extensions", "body", "if self._used > self._limits.chunk_extension_bytes:", "if False:"),
    Mutant("endless-trailers", "body", "self._used += len(line) + 2", "pass"),
    Mutant(
        "counted-body-takes-one-more",
        "body",
        "            taken = self.remaining\n",
        "            taken = self.remaining + 1\n",
    ),
    Mutant(
        "known-names-carry-anything",
        "parser",
        "may_be_remembered is not None and not value.translate(None, VALUE_BYTES)",
        "may_be_remembered is not None",
    ),
    Mutant(
        "same-names-carry-anything", "parser", "len(raw.translate(None, VALUE_BYTES)) != 2 * len(lines) - 2", "False"
    ),
    Mutant("same-names-of-any-connection", "parser", "if lines[number] != line:", "if False:"),
    Mutant(
        "same-names-of-any-length",
        "parser",
        "if CONTENT_LENGTH.fullmatch(value) is None:",
        "if not value.lstrip(b'+'):",
    ),
    Mutant(
        "same-names-of-any-host",
        "parser",
        "self._hosts.get(lines[shape.host_at])",
        "next(iter(self._hosts.values()), None)",
    ),
    Mutant(
        "same-lines-of-any-method", "parser", 'if digit != b"1" or method not in EVERYDAY_METHODS:', 'if digit != b"1":'
    ),
    Mutant("same-lines-in-any-version", "parser", 'if digit != b"1" or method not in', "if method not in"),
]


def mutate(mutant: Mutant | None, folder: Path) -> str:
    """Copy http1 into `folder`, as a package of its own whose name is returned, and make the mistake in it."""
    package = "http1_" + (mutant.name if mutant else "as it is").replace("-", "_").replace(".", "_").replace(" ", "_")
    target = folder / package
    target.mkdir()
    for source in SOURCES.glob("*.py"):
        shutil.copy(source, target)
    if mutant is not None:
        path = target / f"{mutant.file}.py"
        text = path.read_text()
        parts = text.split(mutant.old)
        if len(parts) < mutant.which + 2:
            raise LookupError(f"{mutant.file}.py no longer says {mutant.old!r} {mutant.which + 1} times")
        before = mutant.old.join(parts[: mutant.which + 1])
        path.write_text(before + mutant.new + mutant.old.join(parts[mutant.which + 1 :]))
    for path in target.glob("*.py"):
        text = path.read_text().replace("extension.is_used()", "False")  # what is compiled is of no copy
        path.write_text(text.replace("flyproxy.http1", package))
    return package


def caught_by(package: str) -> str:
    """The first sign that something is wrong with this package; "" for none."""
    codec = Codec(package)
    for quick in (True, False):
        for case in load_all("requests"):
            for fault in check_request(codec, case, quick=quick):
                return fault
        for case in load_all("responses"):
            for fault in check_response(codec, case, quick=quick):
                return fault
    for seed, messages in ROUNDS:
        if odd := play(codec, seed, messages):
            return odd[3]
    return ""
