"""Models and metrics find what `idbench weights get` fetched, without another option."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from file_server import serving, stand_for_the_hub
from huggingface_hub import constants
from tiny_base import wan_base
from tiny_consisid import SIZE, make_antelope, make_folder, world_of_faces
from tiny_parser import make_parser
from tiny_wan import phantom_folder, stand_in_folder, vace_folder
from toy import Done, World

from idbench import downloads
from idbench import published_weights as published
from idbench.baselines.loading import ByWeights
from idbench.baselines.phantom import Phantom
from idbench.baselines.stand_in import StandIn
from idbench.errors import UserError
from idbench.models.concat_id import face_tools
from idbench.registry import make_model
from idbench.released_files import local, released_folder

WAN = ("frames=5", "height=32", "width=48", "steps=2", "device=cpu", "parser=none")


@pytest.fixture(scope="module")
def consisid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("made") / "consisid")


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vace_folder(tmp_path_factory.mktemp("made") / "vace-14b")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine with an empty store and an empty cache of the hub."""
    monkeypatch.setenv(published.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(downloads.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return world_of_faces(tmp_path)


def on_mirror(name: str, folder: Path) -> dict[str, bytes]:
    """The folder as a mirror has it, with its list of files."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes()
             for path in sorted(folder.rglob("*")) if path.is_file()}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  ./{file}\n"
                   for file, data in files.items())
    return {f"{name}/SHA256SUMS": sums.encode(),
            **{f"{name}/{file}": data for file, data in files.items()}}


def run(world: World, model: str, *settings: str) -> Done:
    return world.run("run", "--model", model, "--split", "single", "--suite", "suite", "--limit",
                     "1", "--out", "out", "--no-score",
                     *(word for pair in settings for word in ("--set", pair)))


def test_consisid_runs_from_a_mirrors_files_without_a_network(
    world: World, consisid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(world, "consisid@released", *SIZE, "face_crop=pack")
    assert done.returncode == 2 and "run `idbench weights get consisid`" in done.stderr
    with serving(on_mirror("consisid", consisid)) as server:
        monkeypatch.setenv(downloads.MIRROR_VARIABLE, server.address)
        done = world.run("weights", "get", "consisid")
        assert done.returncode == 2 and "--accept-licence" in done.stderr and not server.asked
        done = world.run("weights", "get", "consisid", "--accept-licence")
        assert done.returncode == 0, done.stderr
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = run(world, "consisid@released", *SIZE, "face_crop=pack")
    assert done.returncode == 0, done.stderr
    stored = json.loads((world.folder / "out" / "run.json").read_text())
    assert "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt" in json.dumps(stored)
    # The same files by hub id, catalogue name and path.
    place = published.store() / "consisid"
    for source in ("BestWishYsh/ConsisID-preview", "consisid", str(place)):
        assert released_folder(source, "consisid", ("vae",)) == place


def test_vace_runs_from_files_that_were_copied(world: World, vace: Path) -> None:
    done = world.run("weights", "get", "vace-14b", "--from", str(vace.parent))
    assert done.returncode == 0, done.stderr
    done = run(world, "vace", *WAN)
    assert done.returncode == 0, done.stderr
    done = run(world, "vace@1.3B", *WAN)
    assert done.returncode == 2 and "idbench weights get vace-1.3b" in done.stderr


def test_vace_runs_from_the_hubs_cache_without_a_network(
    world: World, vace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = published.catalogue()["vace-14b"].hub
    files = {f"{hub}/{p.relative_to(vace).as_posix()}": p.read_bytes()
             for p in vace.rglob("*") if p.is_file()}
    with serving(files) as server:
        stand_for_the_hub(server.address, tmp_path / "hub", monkeypatch)
        assert world.run("weights", "get", "vace-14b").returncode == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = run(world, "vace", *WAN)
    assert done.returncode == 0, done.stderr


def test_a_named_hub_id_is_fetched_after_its_licence_was_accepted(
    world: World, consisid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = str(published.catalogue()["consisid"].hub)
    files = {f"{hub}/{p.relative_to(consisid).as_posix()}": p.read_bytes()
             for p in consisid.rglob("*") if p.is_file()}
    with serving(files) as server:
        stand_for_the_hub(server.address, tmp_path / "hub", monkeypatch)
        done = run(world, "consisid", f"weights={hub}", *SIZE, "face_crop=pack")
        assert done.returncode == 2 and not server.asked
        assert "run `idbench weights get consisid --accept-licence`" in done.stderr
        downloads.agree("consisid", accepted=True)
        done = run(world, "consisid", f"weights={hub}", *SIZE, "face_crop=pack")
        assert done.returncode == 0, done.stderr


def test_a_folder_that_came_in_part_is_not_there_and_is_continued(
    world: World, consisid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads.agree("consisid", accepted=True)
    files = on_mirror("consisid", consisid)
    last = list(files)[-1]
    part = {name: data for name, data in files.items() if name != last}
    with serving(part) as server:
        monkeypatch.setenv(downloads.MIRROR_VARIABLE, server.address)
        with pytest.raises(UserError, match="answers 404"):
            downloads.get("consisid")
        assert published.find_folder("consisid") is None
        server.files[last] = files[last]
        server.asked.clear()
        assert downloads.get("consisid") == published.store() / "consisid"
        assert [path for path, _ in server.asked] == ["/consisid/SHA256SUMS", f"/{last}"]


@pytest.mark.parametrize("listing", [b"<html>", b"0" * 64 + b"  ../../outside\n"])
def test_a_list_that_is_none_is_refused(
    listing: bytes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"vace-14b/SHA256SUMS": listing}) as server:
        monkeypatch.setenv(downloads.MIRROR_VARIABLE, server.address)
        with pytest.raises(UserError, match="is no list of files; write it with"):
            downloads.get("vace-14b")


def test_the_embedded_network_stays_what_its_name_means(
    world: World, consisid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(consisid, published.store() / "consisid")
    made = make_model("consisid")
    assert type(made).__name__ == "EmbeddedConsisID"
    assert "consisid@released uses the released files" in capsys.readouterr().err
    with pytest.raises(UserError, match="Unknown variant of consisid 'relesed': did you mean"):
        make_model("consisid@relesed")


def test_parts_that_a_release_lacks_come_from_their_own_entries(
    world: World, tmp_path: Path
) -> None:
    store = published.store()
    base, _ = wan_base(store / "wan2.1-t2v-1.3b")
    phantom_folder(store / "phantom-1.3b")
    phantom = Phantom(device="cpu")
    assert phantom.base == base and phantom.files == ("Phantom-Wan-1.3B.pth",)
    released = stand_in_folder(store / "stand-in")
    model = StandIn(device="cpu", faces="insightface:antelopev2")
    assert model.path("parsing_bisenet.pth") == released / "parsing_bisenet.pth"
    (store / "facexlib-parsing").mkdir()
    shutil.move(released / "parsing_bisenet.pth", store / "facexlib-parsing")
    assert model.path("parsing_bisenet.pth").parent.name == "facexlib-parsing"
    assert "parsing_bisenet.pth" in {f: 0 for f in model.files}
    with pytest.raises(UserError, match="idbench weights get wan2.1-t2v-14b"):
        _ = model.base


def test_two_sizes_in_one_repository_are_told_apart(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = str(published.catalogue()["phantom-14b"].hub)
    small = phantom_folder(tmp_path / "small")
    large = phantom_folder(tmp_path / "large", shards=True)
    files = {f"{hub}/{p.name}": p.read_bytes() for d in (small, large) for p in d.iterdir()}
    files[f"{hub}/README.md"] = b"not needed"
    with serving(files) as server:
        stand_for_the_hub(server.address, tmp_path / "hub", monkeypatch)
        downloads.get("phantom-1.3b")
        assert published.find_folder("phantom-14b") is None
        downloads.get("phantom-14b")
        found = published.find_folder("phantom-14b")
    assert found is not None and len(list(found.glob("Phantom_Wan_14B*"))) == 3


def test_catalogue_names_stand_for_files_wherever_a_path_is_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = published.store()
    with pytest.raises(UserError, match="run `idbench weights get buffalo_l`"):
        local("buffalo_l")
    make_antelope(store / "antelopev2")
    (store / "viclip").mkdir()
    torch.save({}, store / "viclip" / "ViClip-InternVid-10M-FLT.pth")
    (store / "face-parsing").mkdir()
    make_parser(store / "face-parsing", 1)
    assert local("antelopev2") == store / "antelopev2"
    assert local("viclip").name == "ViClip-InternVid-10M-FLT.pth"
    assert local("models/viclip") == Path("models/viclip")
    face_tools.load_tools("insightface:antelopev2", "face-parsing")
    for file in published.catalogue()["concat-id"].files:
        (store / "concat-id" / file.name).parent.mkdir(parents=True, exist_ok=True)
        (store / "concat-id" / file.name).touch()
    assert local("concat-id/single-identity") == store / "concat-id" / "single-identity"
    monkeypatch.chdir(tmp_path)
    Path("viclip").touch()
    assert local("viclip") == Path("viclip"), "a path comes first"


def test_every_release_of_a_model_is_in_the_catalogue() -> None:
    from idbench.registry import MODELS

    entries = published.catalogue()
    released = [model for _, model in MODELS.usable() if hasattr(model, "ENTRY")]
    assert len(released) == 6
    for model in released:
        parts = [model.released] if isinstance(model, ByWeights) else [model]
        for part in parts:
            assert part.ENTRY in entries and set(part.ELSEWHERE.values()) <= set(entries)
    for model in (Phantom(), Phantom("14B"), StandIn()):
        assert model.entry in entries and model.base_entry in entries
