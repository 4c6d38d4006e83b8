"""Type, help and unit of what an organization has: the front door's own families, and what its apps' pages said."""

from collections.abc import Mapping

from flyproxy.instrument.catalog import FAMILIES, OPERATOR
from flyproxy.series.metadata import Metadata

_FLY = "fly_"
_REPORT = {
    "up": Metadata("gauge", "Whether the last scrape of this target succeeded.", ""),
    "scrape_duration_seconds": Metadata("gauge", "Time the scrape took.", "seconds"),
    "scrape_samples_scraped": Metadata("gauge", "Samples on the page.", ""),
    "scrape_samples_post_metric_relabeling": Metadata("gauge", "Samples kept of them.", ""),
    "scrape_series_added": Metadata("gauge", "Series that were not on the page before.", ""),
}
"""What the scrape itself says about each target."""


def own_metadata(organization: str) -> dict[str, Metadata]:
    """By family. Every organization may have any of Fly's families; what is about this front door is the operator's."""
    return {
        family.name: Metadata(family.type, family.help, family.unit)
        for family in FAMILIES.values()
        if organization == OPERATOR or family.name.startswith(_FLY)
    }


def known_metadata(organization: str, scraped: Mapping[str, Metadata], *, has_targets: bool) -> dict[str, Metadata]:
    """All of it; the names the front door writes itself are never an app's to describe."""
    return {**scraped, **(_REPORT if has_targets else {}), **own_metadata(organization)}
