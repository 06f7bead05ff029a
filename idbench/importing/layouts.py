"""The layouts that a suite can be imported from: a user's own, and those of two public benchmarks.

The content of the public ones stays with their owners: only the form is known.

ConsisID-Benchmark: face pictures in `eval/face_images` (or `face_images`), with `man` or `woman`
in their names, and a CSV of prompts with `index`, `Class`, `Refined_man` and `Refined_woman` in
which `{class_token}` stands for the class. Source: PKU-YuanGroup/ConsisID, `eval/`.

OpenS2V-Eval: JSON files `*_Eval.json`, {sample: {"img_paths": [...], "prompt", "class_label"}},
with pictures of people in folders named after `man` and `woman`. Source:
PKU-YuanGroup/OpenS2V-Nexus, `eval/`.

Both can be downloaded, without their videos.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, RootModel

from idbench.downloads import from_hub
from idbench.errors import UserError
from idbench.importing.sources import (
    PEOPLE_SPLITS,
    Item,
    Person,
    Prompt,
    Row,
    Source,
    distinct,
    pictures_in,
    read_own,
    required,
    safe_name,
)
from idbench.names import one_of
from idbench.stored import validate
from idbench.table_files import read_rows

_PEOPLE_FOLDERS = {"man", "woman", "crop_man", "crop_woman"}
_GARMENT_LABELS = {"clothes", "shirt", "dress", "coat", "jacket", "garment", "suit"}
_BACKGROUND_LABELS = {"background", "scene", "environment", "env"}


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


def download(benchmark: Benchmark, name: str) -> Path:
    """The folder of its pictures and prompts, in the cache of huggingface_hub.
    Raises UserError: offline and not in the cache, or interrupted."""
    return Path(from_hub(name, lambda hub, offline: hub.snapshot_download(
        benchmark.repository, repo_type="dataset", allow_patterns=list(benchmark.files),
        local_files_only=offline)))


class _OpenS2VSample(BaseModel):
    img_paths: list[str]
    prompt: str
    class_label: list[str] | None = None


class _OpenS2VFile(RootModel[dict[str, _OpenS2VSample]]):
    """A file `*_Eval.json`: sample by name."""


def read_source(folder: Path, layout: str = "auto") -> Source:
    """What lies in `folder`, read in the layout of that name (`auto`: recognised by its files).
    Raises UserError: no such folder or layout, nothing recognised, or a wrong row."""
    readers: dict[str, Callable[[Path], Source]] = {
        "own": read_own, "consisid": read_consisid, "opens2v": read_opens2v,
    }
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; pass the folder with the references.")
    if layout == "auto":
        consisid = _face_images(folder) and _caption_table(folder)
        layout = "opens2v" if _sample_files(folder) else "consisid" if consisid else "own"
    one_of("layout", layout, [*readers, "auto"])
    return readers[layout](folder)


def read_consisid(folder: Path) -> Source:
    """ConsisID-Benchmark: one person a picture, prompts with a wording for men and for women. Their
    category is `Category`, else `Class` if there are several, else the letters with which the index
    begins. Raises UserError: no pictures, no table of prompts, or a wrong row."""
    images, table = _face_images(folder), _caption_table(folder)
    if images is None or table is None:
        raise UserError(
            f"{folder} is not a ConsisID-Benchmark download: expected a folder face_images (or "
            "eval/face_images) and a CSV with the columns index and Refined_man or Refined_woman."
        )
    people = [
        Person(safe_name(p.stem), (p,), "woman" if "woman" in p.stem.lower() else "man")
        for p in pictures_in(images)
    ]
    if not people:
        raise UserError(f"{images} contains no images; check the download.")
    distinct((p.name for p in people), "pictures", images)
    prompts = []
    rows = list(read_rows(table, "table of prompts"))
    classes = len({row.get("Class") for _, row in rows}) > 1
    for where, row in rows:
        said = {v: str(row.get(f"Refined_{v}") or "").strip() for v in ("man", "woman")}
        neutral = str(row.get("Refined_Prompt") or row.get("Original_Prompt") or "").strip()
        token = str(row.get("Class") or "").strip()
        said = {v: t.replace("{class_token}", token) for v, t in said.items() if t}
        text = neutral.replace("{class_token}", token) or next(iter(said.values()), "")
        if not text:
            raise UserError(f"{where} has no prompt; fill in Refined_man or Refined_woman.")
        index = required(row, "index", where)
        category = str(row.get("Category") or (token if classes else "")).strip()
        category = category or re.split(r"[\d_-]", index)[0] or "all"
        prompts.append(Prompt(safe_name(index), category, text, 1, said))
    distinct((p.name for p in prompts), "prompts", table)
    return Source("consisid", tuple(people), tuple(prompts))


def read_opens2v(folder: Path) -> Source:
    """OpenS2V-Eval: each sample has its own pictures and prompt; nothing is drawn.

    Read are samples of one to three people, and of one person with a garment, a background, or
    other things, where the person is the only reference. A sample in several files is read once.
    `singlehuman` takes the image cut to the head, as OpenS2V's script does. Raises UserError: no
    JSON of samples, or one of another form."""
    files = _sample_files(folder)
    if not files:
        raise UserError(
            f"{folder} is not an OpenS2V-Eval download: expected files named *_Eval.json."
        )
    people: dict[str, Person] = {}
    items: dict[str, Item] = {}
    prompts: dict[str, Prompt] = {}
    rows: dict[str, Row] = {}
    skipped: dict[str, str] = {}
    for file in files:
        content = validate(_OpenS2VFile, file.read_bytes(), file, "check the download").root
        for name, sample in content.items():
            if name in rows or name in skipped:
                continue
            missing = [p for p in sample.img_paths if not (folder / p).is_file()]
            if missing:
                skipped[name] = f"the image {missing[0]} is missing"
                continue
            here, things, left_out = _opens2v_references(
                folder, sample.img_paths, [label.lower() for label in sample.class_label or []])
            reason = _unusable(here, things, left_out)
            if reason:
                skipped[name] = reason
                continue
            if left_out or len(things) > 1:
                left_out += [item.name for item in things]
                things = []
            skipped.update((f"{name}/{thing}", "only the person is a reference of this sample")
                           for thing in left_out)
            people.update((p.name, p) for p in here)
            items.update((i.name, i) for i in things)
            prompt = safe_name(name)
            category = re.split(r"[_\d]", name)[0] or "all"
            prompts[prompt] = Prompt(prompt, category, sample.prompt.strip(), len(here))
            rows[name] = Row(prompt, tuple(p.name for p in here), tuple(i.name for i in things))
    if not rows:
        first = next(iter(skipped.items()), ("none", "there is no sample"))
        raise UserError(
            f"No sample of {folder} can be used, the first ({first[0]}) because {first[1]}; "
            "check that Images/ is next to the JSON files."
        )
    return Source(
        "opens2v", tuple(people.values()), tuple(prompts.values()), tuple(items.values()),
        rows=tuple(rows.values()), skipped=skipped,
    )


def _opens2v_references(
    folder: Path, paths: list[str], labels: list[str]
) -> tuple[list[Person], list[Item], list[str]]:
    """The people and items of a sample's images, and the names of its other things."""
    people, items, others = [], [], []
    for index, path in enumerate(paths):
        label = labels[index] if index < len(labels) else ""
        words = set(Path(path).parent.as_posix().lower().split("/"))
        if words & _PEOPLE_FOLDERS:
            head = re.sub(r"(?<=/singlehuman/)(?=(wo)?man/)", "crop_", path)
            path = head if (folder / head).is_file() else path
        name = safe_name(Path(path).with_suffix("").as_posix().removeprefix("Images/"))
        if words & _PEOPLE_FOLDERS:
            people.append(Person(name, (folder / path,)))
        elif label in _GARMENT_LABELS or words & _GARMENT_LABELS:
            items.append(Item("garment", name, folder / path))
        elif label in _BACKGROUND_LABELS or words & _BACKGROUND_LABELS:
            items.append(Item("background", name, folder / path))
        else:
            others.append(label or Path(path).parent.name)
    return people, items, others


def _unusable(people: list[Person], items: list[Item], others: list[str]) -> str | None:
    """Why a sample cannot be kept; None: it can."""
    if not people:
        return f"it refers to an object ({others[0]})" if others else "it refers to no person"
    if len({p.name for p in people}) < len(people):
        return "it refers to one image twice"
    if len(people) not in PEOPLE_SPLITS:
        return f"it refers to {len(people)} people"
    if len(people) > 1 and (items or others):
        return "no split has this mix of people and other references"
    return None


def _sample_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*_Eval.json"))


def _face_images(folder: Path) -> Path | None:
    places = (folder / "eval/face_images", folder / "face_images")
    return next((p for p in places if p.is_dir()), None)


def _caption_table(folder: Path) -> Path | None:
    for path in sorted(folder.glob("*.csv")) + sorted(folder.glob("eval/*.csv")):
        head = path.read_text(encoding="utf-8-sig", errors="replace").split("\n", 1)[0]
        if "index" in head and ("Refined_man" in head or "Refined_woman" in head):
            return path
    return None
