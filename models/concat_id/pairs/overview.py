"""The HTML page of a build: what was dropped, how similar people are, and sample pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from idbench.files import write_text
from idbench.models.concat_id.pairs.parquet_files import rows
from idbench.models.concat_id.pairs.partners import BIN
from idbench.models.concat_id.pairs.people import People
from idbench.models.concat_id.pairs.stages import Output
from idbench.models.concat_id.pairs.store import Store
from idbench.pages import data_uri, template
from idbench.pictures import UnreadablePicture, encoded, open_rgb
from idbench.reports import figures

SHOWN = 8
"""Pairs shown of each output."""
RANGES = {
    "cross": ("Stage II", figures.SERIES[0]), "tradeoff": ("Stage III", figures.SERIES[1]),
    "multi": ("several people, subjects", figures.SERIES[2]),
}
"""Ranges of cosines: name in the figure, and colour."""
TEMPLATE = Path(__file__).parent / "templates" / "pairs.html"


def write_page(
    path: Path, summary: Mapping[str, Any], outputs: Sequence[Output], people: People,
    store: Store, out: Path,
) -> None:
    """Write the page, atomically: one file without scripts, which opens from disk."""
    settings = {**summary["settings"], **((summary["calibration"] or {}).get("used", {}))}
    seed = settings["seed"]
    samples = {
        made.name: [
            _shown(row, store, out) for row in rows(sample(made, seed), people, store, seed)
        ] for made in outputs
    }
    text = template(TEMPLATE).render(
        summary=summary, samples=samples,
        figure=Markup(histogram(summary["similarity"], settings)),
        videos=[(k, v) for k, v in summary["videos"]["dropped"].items() if v],
    )
    write_text(path, text)


def sample(output: Output, seed: int) -> Output:
    """At most `SHOWN` rows of an output, drawn by the seed; for Stage III the best ranked."""
    count = len(output.targets)
    if output.score is not None:
        chosen = np.arange(min(SHOWN, count))
    else:
        rng = np.random.default_rng([seed, 3])
        chosen = np.sort(rng.choice(count, min(SHOWN, count), replace=False))
    return output.rows(chosen)


def histogram(similarity: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Inline SVG: cosines of a sample of all pairs and of the pairs found, with the ranges."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    with figures.style():
        figure = Figure(figsize=(8.4, 3.0))
        panels = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.97, bottom=0.26, top=0.9, wspace=0.16)
        for axes, name, title in (
            (panels[0], "sample_of_all_pairs", "all pairs (a sample)"),
            (panels[1], "found", f"pairs from {similarity['lowest_cosine_searched']:.2f} on"),
        ):
            bars = similarity[name]
            axes.bar([float(b) + BIN / 2 for b in bars], list(bars.values()), width=BIN,
                     color=figures.MUTED, zorder=2)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("ArcFace cosine")
            if bars:
                axes.set_yscale("log")
                axes.set_ylim(0.7, 2 * max(bars.values()))
                # The usual labels of a logarithm are formulas, which stay unset here.
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            for range_name, (label, colour) in RANGES.items():
                low, high = settings[range_name]
                axes.axvspan(low, high, color=colour, alpha=0.18, label=label, lw=0, zorder=1)
        panels[0].set_ylabel("pairs of people")
        panels[0].set_xlim(-1, 1)
        panels[1].set_xlim(similarity["lowest_cosine_searched"], 1)
        figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, ncols=len(RANGES),
                      loc="lower center", bbox_to_anchor=(0.5, -0.02))
    return figures.to_svg(figure, "How many pairs of people have which ArcFace cosine")


def _shown(row: Mapping[str, Any], store: Store, out: Path) -> dict[str, Any]:
    """A pair with its images: the target's own faces, and the references."""
    number = store.number_of(row["video"])
    record = store.get(number).record if number else None
    own = [p.faces[len(p.faces) // 2].image for p in record.people] if record else []
    references = [
        {
            "kind": r["kind"], "video": r["video"], "cosine": r["cosine"],
            "image": _data(out / r["candidates"][r["chosen"]]["image"]),
        } for r in row["references"]
    ]
    return {
        "video": row["video"], "caption": row["caption"], "score": row.get("score"),
        "own": [_data(out / image) for image in own], "references": references,
    }


def _data(path: Path) -> str | None:
    """The image, small, as a data URI; None when it was removed."""
    try:
        small = open_rgb(path)
    except UnreadablePicture:
        return None
    small.thumbnail((96, 96))
    return data_uri("image/jpeg", encoded(small, "JPEG", quality=85))
