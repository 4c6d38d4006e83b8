"""A YAML text as plain values that remember where they stood.

What it must do: say the line and column of every key and value, however deep, and survive hostile text. The plan:
PyYAML composes nodes (positions, anchors), our own walk turns them into plain values, filling a table of marks.
Bounds: the text's bytes, the depth, and the number of values after anchors are unfolded (an alias bomb of nine
lines unfolds to 10^9 values; it is stopped at VALUES_MAX).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import yaml

from flyproxy.config.faults import ConfigError, Fault, Path, written_path
from flyproxy.config.scalars import VariableError, expand, has_variable, plain_value

FILE_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 24
VALUES_MAX = 100_000

_PLAIN = "!plain"
_TEXT = "tag:yaml.org,2002:str"
_KNOWN_TAGS = {_PLAIN, _TEXT, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_YAML_PROBLEMS = (
    (r"found character '\\t' that cannot start any token", "a tab cannot be used here; indent with spaces"),
    (
        "mapping values are not allowed",
        "a ':' where none is expected; does the indentation fit the lines above, or does the value need quotes?",
    ),
    ("could not find expected ':'", "not valid YAML: a key without its ':'"),
    ("expected <block end>", "the indentation does not fit the lines above"),
    ("found unexpected end of stream", "not valid YAML: a quote that begins here is never closed"),
    (r"expected ',' or '\]'", "not valid YAML: a '[' that begins here is never closed"),
    (r"expected ',' or '\}'", "not valid YAML: a '{' that begins here is never closed"),
    ("but found another document", "one document is wanted; a second begins here"),
    ("found character '%'", "a value cannot begin with '%'; put it in quotes"),
    ("found character '@'", "a value cannot begin with '@'; put it in quotes"),
    ("found character '`'", "a value cannot begin with '`'; put it in quotes"),
)
_BEGINS_AT_CONTEXT = ("never closed",)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place: line and column, both from 0."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """The values of one configuration and where each came from."""

    name: str
    lines: tuple[str, ...] = ()
    tree: object = None
    """dicts, lists and scalars (`scalars.plain_value`)."""
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    """Values that came from a flag or a variable: its name."""
    faults: list[Fault] = field(default_factory=list)
    """What was wrong but did not stop the reading: duplicate keys, unknown variables, tags."""
    warnings: list[Fault] = field(default_factory=list)
    """What is not wrong, but not done as written either."""

    def fault(self, path: Path, sentence: str, *, at_key: bool = False) -> Fault:
        """A fault at the value of a path, or at its key; where the path is not written, at what would hold it."""
        for length in range(len(path), -1, -1):
            part = path[:length]
            if part in self.origins:
                return Fault(self.origins[part], None, None, written_path(path), sentence)
            mark = self.keys.get(part) if at_key else None
            mark = mark or self.values.get(part)
            if mark is not None:
                return self.fault_at(mark, sentence, path)
        return Fault(self.name, None, None, written_path(path), sentence)

    def fault_at(self, mark: Mark, sentence: str, path: Path = ()) -> Fault:
        """A fault at a place of the text."""
        line = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Fault(self.name, mark.line + 1, mark.column + 1, written_path(path), sentence, line)

    def warn(self, path: Path, sentence: str, *, at_key: bool = True) -> None:
        """Note a warning at a key, or at its value."""
        self.warnings.append(replace(self.fault(path, sentence, at_key=at_key), severity="warning"))

    def warn_once(self, path: Path, sentence: str) -> None:
        """Note a warning that says the same wherever it stands: at the first place of the file only."""
        self.warn(path, sentence)
        same = [warning for warning in self.warnings if warning.sentence == sentence]
        first = min(same, key=lambda warning: (warning.line or 0, warning.column or 0))
        self.warnings = [warning for warning in self.warnings if warning is first or warning.sentence != sentence]


def read_document(raw: bytes, name: str, environ: Mapping[str, str]) -> Document:
    """The document of a file's bytes. Raises ConfigError when it cannot be read at all; see `Document.faults`."""
    if len(raw) > FILE_BYTES_MAX:
        sentence = f"the file has {len(raw)} bytes; a configuration has at most {FILE_BYTES_MAX}"
        raise ConfigError([Fault(name, None, None, "", sentence)])
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([_decoding_fault(raw, name, error)]) from None
    document = Document(name, tuple(_LINE_BREAK.split(text)))
    node = _compose(text, document)
    if node is not None:
        document.tree = _Walk(document, environ).value(node, (), 0)
    return document


def _decoding_fault(raw: bytes, name: str, error: UnicodeDecodeError) -> Fault:
    before = raw[: error.start].decode("utf-8")
    lines = _LINE_BREAK.split(before)
    end = raw.find(b"\n", error.start)
    rest = raw[error.start : end if end >= 0 else len(raw)].decode("utf-8", "replace")
    sentence = f"the file is not UTF-8: byte 0x{raw[error.start]:02x}"
    return Fault(name, len(lines), len(lines[-1]) + 1, "", sentence, (lines[-1] + rest).rstrip("\r\n"))


class _TooDeepError(Exception):
    def __init__(self, mark: Mark) -> None:
        self.mark = mark


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with a bounded depth, and without YAML 1.1's guesses at what a scalar means."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it untyped
            raise _TooDeepError(_mark(event.start_mark))
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: object) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if isinstance(implicit, tuple) and implicit[0] else _TEXT
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return tag


def _compose(text: str, document: Document) -> yaml.Node | None:
    loader: _Composer | None = None
    try:
        # ReaderError comes from the constructor already, which reads the whole text for forbidden characters.
        loader = _Composer(text)
        node: yaml.Node | None = loader.get_single_node()
        return node
    except _TooDeepError as error:
        fault = document.fault_at(error.mark, f"nested deeper than {DEPTH_MAX} levels")
    except yaml.reader.ReaderError as error:
        lines = _LINE_BREAK.split(text[: error.position])
        code = error.character if isinstance(error.character, int) else ord(error.character)
        mark = Mark(len(lines) - 1, len(lines[-1]))
        fault = document.fault_at(mark, f"the character U+{code:04X} is not allowed in YAML")
    except yaml.MarkedYAMLError as error:
        fault = _syntax_fault(error, document)
    except (ValueError, OverflowError):  # PyYAML hands any number of `\\U........` to chr()
        assert loader is not None, "the constructor only reads"
        place: _Place = loader.get_mark()
        fault = document.fault_at(_mark(place), "not valid YAML: an escape that stands for no character")
    raise ConfigError([fault])


def _syntax_fault(error: yaml.MarkedYAMLError, document: Document) -> Fault:
    problem = error.problem or "it cannot be read"
    sentence = f"not valid YAML: {problem}"
    for pattern, ours in _YAML_PROBLEMS:
        if re.match(pattern, problem):
            sentence = ours
            break
    alias = re.match(r"found undefined alias '(.*)'", problem)
    if alias:
        sentence = f"'*{alias[1]}' names no anchor above it"
    mark = error.problem_mark
    if error.context_mark is not None and sentence.endswith(_BEGINS_AT_CONTEXT):
        mark = error.context_mark
    return document.fault_at(_mark(mark), sentence)


class _Place(Protocol):
    line: int
    column: int


def _mark(mark: _Place | None) -> Mark:
    return Mark(mark.line, mark.column) if mark is not None else Mark(0, 0)


class _Walk:
    """Nodes to plain values, marks and faults."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._count = 0

    def value(self, node: yaml.Node, path: Path, depth: int) -> object:
        mark = _mark(node.start_mark)
        self._counted(mark, depth)
        self._document.values[path] = mark
        if node.tag not in _KNOWN_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(path, f"tags such as {tag} are not used here; write the plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, index), depth + 1) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _counted(self, mark: Mark, depth: int) -> None:
        """Every value and every merged key, so that no alias makes more work than the bounds allow."""
        self._count += 1
        if self._count > VALUES_MAX or depth > DEPTH_MAX:
            bound = f"{VALUES_MAX} values" if self._count > VALUES_MAX else f"{DEPTH_MAX} levels"
            sentence = f"with its aliases unfolded the file has more than {bound}"
            raise ConfigError([self._document.fault_at(mark, sentence)])

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        text: str = node.value
        if _SURROGATE.search(text):
            self._fault(path, "half a surrogate pair is no character; write the character itself, or \\U and 8 digits")
            return None
        plain = node.tag == _PLAIN
        if has_variable(text):
            try:
                # Quotes are needed around ${VAR} inside {...}: they must not turn a port into a text.
                return plain_value(expand(text, self._environ))
            except VariableError as error:
                self._fault(path, str(error))
                return None
        return plain_value(text) if plain else text

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, object]:
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._document.faults.append(
                    self._document.fault_at(_mark(key_node.start_mark), "a key must be a plain word", path)
                )
            elif _is_merge(key_node):
                merged.append(value_node)
            elif key_node.value in pairs:
                first = pairs[key_node.value][0].start_mark.line + 1
                self._document.faults.append(
                    self._document.fault_at(
                        _mark(key_node.start_mark),
                        f"the key '{key_node.value}' is given twice; first in line {first}",
                        (*path, key_node.value),
                    )
                )
            else:
                pairs[key_node.value] = (key_node, value_node)
        for value_node in merged:
            self._merge(value_node, pairs, path, depth)
        result: dict[str, object] = {}
        for key, (key_node, value_node) in pairs.items():
            self._document.keys[(*path, key)] = _mark(key_node.start_mark)
            result[key] = self.value(value_node, (*path, key), depth + 1)
        return result

    def _merge(self, node: yaml.Node, pairs: dict[str, tuple[yaml.Node, yaml.Node]], path: Path, depth: int) -> None:
        """`<<: *anchor` or `<<: [*one, *two]`: their keys, where not given here; the first one wins. What an anchor has
        itself merged is among its keys, after its own."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            mark = _mark(source.start_mark)
            self._counted(mark, depth)
            if not isinstance(source, yaml.MappingNode):
                sentence = "'<<' takes a mapping's alias, or a list of them"
                self._document.faults.append(self._document.fault_at(mark, sentence, path))
                continue
            merged: list[yaml.Node] = []
            for key_node, value_node in source.value:
                self._counted(mark, depth)
                if isinstance(key_node, yaml.ScalarNode) and _is_merge(key_node):
                    merged.append(value_node)
                elif isinstance(key_node, yaml.ScalarNode):
                    pairs.setdefault(key_node.value, (key_node, value_node))
            for further in merged:
                self._merge(further, pairs, path, depth + 1)

    def _fault(self, path: Path, sentence: str) -> None:
        self._document.faults.append(self._document.fault(path, sentence))


def _is_merge(key: yaml.ScalarNode) -> bool:
    return bool(key.value == "<<" and key.tag == _PLAIN)
