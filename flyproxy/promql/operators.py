"""The binary operators and how tightly they bind (Prometheus, "Operator precedence")."""

PRECEDENCE: dict[str, int] = {
    "or": 1,
    "and": 2,
    "unless": 2,
    "==": 3,
    "!=": 3,
    "<=": 3,
    "<": 3,
    ">=": 3,
    ">": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "%": 5,
    "atan2": 5,
    "^": 6,
}
"""A higher number binds tighter. All group from the left but `^`."""

SIGN_PRECEDENCE = PRECEDENCE["*"]
"""Of a sign: `-x ^ 2` is `-(x ^ 2)`, `-x * y` is `(-x) * y`."""

COMPARISONS = frozenset({"==", "!=", "<=", "<", ">=", ">"})
SET_OPERATORS = frozenset({"and", "or", "unless"})
GROUPS_FROM_THE_RIGHT = frozenset({"^"})
