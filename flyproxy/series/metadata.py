"""What is said about a metric beside its samples."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metadata:
    """A family's TYPE, HELP and UNIT lines."""

    type: str
    """counter, gauge, histogram, gaugehistogram, summary, info, stateset or unknown."""
    help: str
    unit: str
    """Empty for none."""
