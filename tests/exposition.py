"""What a scrape shows."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Counted = dict[tuple[str, ...], float]
"""Values by those of some labels."""


def counted_in(text: str, name: str, *by: str, **only: str) -> Counted:
    """The series of a metric that are not 0, summed up by these labels; `only` are of all."""
    found: Counted = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.value and only.items() <= sample.labels.items():
                labels = tuple(sample.labels[label] for label in by)
                found[labels] = found.get(labels, 0) + sample.value
    return found
