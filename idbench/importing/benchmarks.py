"""Published benchmarks of photographs, downloaded without their videos to become suites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idbench.downloads import from_hub
from idbench.names import unknown

REAL_PEOPLE = (
    "These are pictures of real people, some of them well known. The licence covers the files, not "
    "the people's rights in their own image: use them for research, do not publish videos of them, "
    "and read docs/responsible-use.md."
)


@dataclass(frozen=True)
class Benchmark:
    """A data set of the Hugging Face hub.

    Attributes:
        files: patterns of the pictures and prompts; nothing else is downloaded.
        layout: of `idbench suites import`.
        licence: as its page labels it.
        people: how many people are drawn (None: all).
    """

    repository: str
    files: tuple[str, ...]
    layout: str
    licence: str
    people: int | None = None


BENCHMARKS = {
    "consisid-bench": Benchmark(
        "BestWishYsh/ConsisID-preview-Data", ("eval/*", "video_caption_eval_old.csv"),
        "consisid", "Apache-2.0 as labelled by its page", 97,
    ),
    "opens2v-eval": Benchmark(
        "BestWishYsh/OpenS2V-Eval", ("*_Eval.json", "Images/*"), "opens2v", "as stated on its page",
    ),
}
"""By the name of `idbench suites get`. 97 people: the number of references in the paper."""


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises UserError: unknown name; says the nearest."""
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def download(name: str) -> Path:
    """The folder of its pictures and prompts, in the cache of huggingface_hub.
    Raises UserError: offline and not in the cache, or interrupted."""
    found = benchmark(name)
    return Path(from_hub(name, lambda hub, offline: hub.snapshot_download(
        found.repository, repo_type="dataset", allow_patterns=list(found.files),
        local_files_only=offline)))
