"""Several photographs of one person: in a manifest, by --reference, and in the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import World

from idbench.errors import UserError
from idbench.manifest import from_files, from_manifest, listed
from idbench.runs import Run
from idbench.types import Video
from idbench.video import write_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a", "a2", "a3", "b"):
        picture = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.png")
    for name in ("one", "two", "three"):
        frames = rng.integers(0, 255, (4, 32, 48, 3), dtype=np.uint8)
        write_video(tmp_path / f"{name}.mp4", Video(frames, 8.0))
    return tmp_path


def test_rows_that_share_a_photograph_show_one_person(folder: Path) -> None:
    (folder / "videos.csv").write_text(
        "video,reference\none.mp4,photos/a.png\ntwo.mp4,photos/a2.png | photos/a.png;photos/b.png\n"
        "three.mp4,photos/a3.png|photos/a2.png\n"
    )
    first, second, third = (sample for sample, _ in from_manifest(folder / "videos.csv", None))
    assert [len(r.images) for r in second.references] == [2, 1]
    assert [p.name for p in second.references[0].images] == ["a2.png", "a.png"]
    assert first.identities[0] == second.identities[0] == third.identities[0]
    assert second.identities[1] != first.identities[0]
    assert len({first.id, second.id, third.id}) == 3


def test_one_person_twice_in_a_video_is_refused(folder: Path) -> None:
    manifest = folder / "videos.csv"
    manifest.write_text("video,reference\none.mp4,photos/a.png;photos/b.png|photos/a.png\n")
    with pytest.raises(UserError, match="name the same image twice"):
        from_manifest(manifest, None)
    manifest.write_text("video,reference\none.mp4,photos/a.png;photos/a2.png\n"
                        "two.mp4,photos/a.png|photos/a2.png\n")
    with pytest.raises(UserError, match="share photographs in another row, so they are one person"):
        from_manifest(manifest, None)


def test_a_bar_in_a_files_own_name_is_no_separator(folder: Path) -> None:
    odd = folder / "a|b.png"
    odd.write_bytes((folder / "photos" / "a.png").read_bytes())
    ((sample, _),) = from_files([folder / "one.mp4"], [odd], "")
    assert sample.references[0].images == (odd,)
    with pytest.raises(UserError, match="gone.png is missing"):
        from_files([folder / "one.mp4"], [Path(f"{odd.parent}/photos/a.png|gone.png")], "")


def test_other_photographs_are_another_run(folder: Path) -> None:
    photos = folder / "photos"
    seals = {
        text: listed([folder / "one.mp4"], references=[Path(text)]).title.sha256
        for text in (f"{photos}/a.png", f"{photos}/a.png|{photos}/a2.png")
    }
    assert len(set(seals.values())) == 2


def test_the_run_keeps_every_photograph(world: World, folder: Path) -> None:
    done = world.run(
        "score", str(folder / "one.mp4"), str(folder / "two.mp4"), "--reference",
        f"{folder}/photos/a.png|{folder}/photos/a2.png", "--metric", "sampled", "--out", "both",
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(world.folder / "both")
    for record in run.records():
        (reference,) = record.sample.references
        assert len(reference.images) == 2 and all(path.is_file() for path in reference.images)
        assert all(path.parent.name == "references" for path in reference.images)


def test_a_bar_alone_is_no_reference(world: World) -> None:
    (world.folder / "list.csv").write_text("video,reference\na.mp4,|\n")
    done = world.run("score", "--manifest", "list.csv", "--metric", "sampled")
    assert done.returncode == 2 and "The reference '|' names no image" in done.stderr


def test_the_same_rows_are_the_same_samples_in_every_version(folder: Path) -> None:
    """Ids name folders of runs; they hold the content of the pictures, so those are fixed here."""
    for name in ("one", "two"):
        (folder / f"{name}.bmp").write_bytes(name.encode())
    (folder / "v.csv").write_text(
        "video,reference,prompt,id\none.mp4,one.bmp,A man.,\none.mp4,one.bmp|two.bmp,A man.,x\n")
    (first, _), (second, _) = from_manifest(folder / "v.csv", None)
    assert (first.id, second.id) == ("ecaccd92c3f9a660", "dfb526f9fb7f3050")
    assert first.seed == second.seed == 0
    assert first.prompt_id == "one" and second.prompt_id == "x"


def test_files_of_one_stem_are_samples_of_their_own(folder: Path) -> None:
    (folder / "more").mkdir()
    for name in ("one.mkv", "more/one.mp4"):
        (folder / name).write_bytes((folder / "one.mp4").read_bytes())
    videos = [folder / name for name in ("one.mp4", "one.mkv", "more/one.mp4", "two.mp4")]
    made = from_files(videos, [folder / "photos/a.png"], "")
    assert [s.prompt_id for s, _ in made] == ["one.mp4", "one.mkv", "more/one.mp4", "two"]
    (folder / "v.csv").write_text(
        "video,reference,prompt\none.mp4,photos/a.png,Red.\none.mp4,photos/a.png,Blue.\n"
        "one.mkv,photos/b.png,Red.\n")
    made = from_manifest(folder / "v.csv", None)
    assert [s.prompt_id for s, _ in made] == ["one.mp4: Red.", "one.mp4: Blue.", "one"]


def test_videos_and_prompts_that_do_not_fit_are_refused(folder: Path) -> None:
    photo, video = [folder / "photos/a.png"], folder / "one.mp4"
    with pytest.raises(UserError, match="one.mp4 is given 2 times"):
        from_files([video, folder / "photos/../one.mp4"], photo, "")
    with pytest.raises(UserError, match="There are 2 prompts for 1 videos"):
        from_files([video], photo, ["a", "b"])
