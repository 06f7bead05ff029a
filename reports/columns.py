"""Columns of tables: names of metrics as people read them, their order, and the text of a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from idbench.measurements import metric_of as _metric
from idbench.registry import METRICS
from idbench.statistics import Estimate


def plain_title(name: str) -> str:
    """A metric's name as papers print it."""
    return str(getattr(_metric(name), "title", name))


def title(name: str) -> str:
    """The same with the arrow of the better direction, where it is known."""
    metric = _metric(name)
    if metric is None:
        return name
    return f"{metric.title} {'↑' if metric.higher_is_better else '↓'}"


def shown(name: str) -> bool:
    """Whether a metric has a column in the tables for reading."""
    metric = _metric(name)
    return metric is None or metric.shown != "long"


def columns(names: Iterable[str]) -> list[str]:
    """Those of `names` that have a column, in the registry's order; plugins' metrics last."""
    order = {name: place for place, name in enumerate(METRICS.builtin)}
    return sorted(filter(shown, dict.fromkeys(names)), key=lambda n: order.get(n, len(order)))


def headline(names: Iterable[str]) -> list[str]:
    """Those of `names` that the paper's tables have."""
    return [name for name in names if getattr(_metric(name), "shown", "") == "headline"]


def about(names: Iterable[str], *what: str) -> list[str]:
    """Those of `names` that measure `what`; see `Metric.about`."""
    return [name for name in names if getattr(_metric(name), "about", "") in what]


def cell(found: Estimate | None) -> str:
    """`0.442 [0.401, 0.483] (96 %)`: mean, interval, and coverage where it is under 100 %; nothing
    for what was not asked."""
    if found is None:
        return ""
    if found.mean is None:
        return f"unscored (0% of {found.n})"
    text = f"{found.mean:z.3f}"
    if found.interval:
        low, high = found.interval
        text += f" [{low:z.3f}, {high:z.3f}]"
    if found.scored < found.n:
        text += f" ({found.scored / found.n:.0%})"
    return text


def most_samples(estimates: Mapping[str, Estimate]) -> str:
    """The cell of how many samples were asked for, of the metric with most."""
    return str(max((e.n for e in estimates.values()), default=""))


def number(value: float | None, digits: int = 3) -> str:
    """A value on a page, with a true minus sign; an en dash when there is none."""
    return "–" if value is None else f"{value:z.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share as a whole percentage; an en dash when there is none."""
    return "–" if value is None else f"{100 * value:.0f}%"


def p_text(p_value: float) -> str:
    """A p-value for reading: `p 0.012`."""
    return "p under 0.001" if p_value < 0.001 else f"p {p_value:.3f}"


def published_title(name: str) -> str:
    """The heading of a column of published numbers."""
    return _PUBLISHED_TITLES.get(name) or title(name)


_PUBLISHED_TITLES = {"facesim": "FaceSim (%) ↑", "clipdist_printed": "printed: 1 - CLIPDist"}
