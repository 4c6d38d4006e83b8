"""How the engine answers: the dialect and the bounds of a query."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["prometheus3", "prometheus2"]


@dataclass(frozen=True, slots=True)
class Options:
    """`prometheus3`: left-open windows; `prometheus2`: closed windows and legacy label names, as Prometheus 2.42."""

    mode: Mode = "prometheus3"
    metricsql: bool = True
    lookback_ms: int = 300_000
    """How old the newest sample of a series may be; also the window MetricsQL assumes at an instant."""
    points_max: int = 11_000
    """Steps of a range query."""
    samples_max: int = 50_000_000
    """Points one query may hold at once; a subquery may have a tenth as many steps (each is ten numbers)."""
    default_subquery_step_ms: int = 60_000

    @property
    def left_open(self) -> bool:
        return self.mode == "prometheus3"
