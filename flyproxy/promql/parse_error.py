"""What is said about an expression that cannot be understood."""

from flyproxy.errors import FlyproxyError
from flyproxy.promql.nodes import Span


class ParseError(FlyproxyError):
    """The asker's fault. `str()` is Prometheus' manner: `1:6: parse error: <sentence>`, line and column from 1."""

    def __init__(self, sentence: str, position: Span, expression: str) -> None:
        self.sentence = sentence
        self.position = position
        before = expression[: position.start]
        self.line = before.count("\n") + 1
        self.column = position.start - (before.rfind("\n") + 1) + 1
        super().__init__(f"{self.line}:{self.column}: parse error: {sentence}")
