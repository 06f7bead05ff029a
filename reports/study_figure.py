"""The result of a study as bars, as in Figure 6 of the Concat-ID paper."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from idbench.reports import figures
from idbench.reports.study_record import TITLES
from idbench.reports.study_score import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(result: Result) -> Figure:
    """For each question a bar for each system: the share of its comparisons that it won."""
    questions = [a.question for a in result.agreements]
    number = len(result.systems)
    width = 0.8 / number
    with figures.style():
        figure = figures.blank((max(4.2, 1.1 + len(questions) * (0.5 + 0.42 * number)), 3.0),
                               layout="constrained")
        axes = figure.subplots()
        axes.axhline(50, color=figures.MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        for index, system in enumerate(result.systems):
            for place, question in enumerate(questions):
                share = next(s.share for s in result.strengths
                             if s.question == question and s.system == system)
                if share.mean is None:
                    continue
                x = place + (index - (number - 1) / 2) * width
                mean = 100 * share.mean
                axes.bar([x], [mean], width * 0.9, color=figures.colour(index),
                         label=system if place == 0 else None)
                above = mean
                if share.low is not None and share.high is not None:
                    axes.errorbar([x], [mean], yerr=[[max(mean - 100 * share.low, 0)],
                                                     [max(100 * share.high - mean, 0)]],
                                  color=figures.INK, elinewidth=1.1, capsize=2.5)
                    above = max(above, 100 * share.high)
                axes.text(x, above + 1.5, f"{mean:.0f}%", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(questions)), [fill(TITLES.get(q, q), 18) for q in questions])
        axes.tick_params(axis="x", labelcolor=figures.INK)
        axes.set_ylim(0, 112)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_ylabel("preferred, % of votes")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8.5,
                    ncols=figures.legend_columns(result.systems))
        return figure
