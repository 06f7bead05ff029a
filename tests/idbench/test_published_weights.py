"""The catalogue of published weights, downloads from a server that misbehaves, and `weights`."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from file_server import Server, serving

from idbench import downloads, resumed_download
from idbench import published_weights as published
from idbench.cli import main
from idbench.errors import UserError
from idbench.files import DiskFull
from idbench.published_weights import CatalogueFile, Entry

DATA = bytes(range(256)) * 2000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server with one file; the cache and the hub's cache are in `tmp_path`."""
    from huggingface_hub import constants

    monkeypatch.setenv(published.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(downloads.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(resumed_download, "STALL_SECONDS", 0.4)
    with serving({"one/net.bin": DATA, "owner/repo/net.bin": DATA}) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE",
            running.address + "/{repo_id}/resolve/{revision}/{filename}")
        yield running


def entry(server: Server, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """The catalogue is one entry `one` of one file."""
    file = {"name": "net.bin", "url": f"{server.address}/one/net.bin", "sha256": SHA}
    file |= changes.pop("file", {})  # type: ignore[arg-type]
    about = {"about": "a network", "licence": "MIT", "terms": "https://example.org",
             "files": (CatalogueFile.model_validate(file),), **changes}
    monkeypatch.setattr(
        published, "catalogue", lambda: {"one": Entry.model_validate(about)})


def cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_the_catalogue_is_whole() -> None:
    entries = published.catalogue()
    networks = [n for one in entries.values() for n in one.networks]
    assert sorted(networks) == ["arcface", "clip", "curricularface", "viclip"]
    for name in ("buffalo_l", "antelopev2", "viclip", "clip-b32", "clip-l14", "eva02-clip-l336",
                 "facexlib-detection", "facexlib-parsing", "concat-id", "concat-id-wan", "consisid",
                 "id-animator", "ingredients", "vace-14b", "phantom-1.3b", "stand-in"):
        assert entries[name].licence and entries[name].terms.startswith("https://")
    assert published.published_name(
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"
    ) == "w600k_r50.onnx of buffalo_l"


def test_what_no_public_source_states_is_marked() -> None:
    entries = published.catalogue()
    assert [name for name, one in entries.items() if one.unconfirmed] == ["concat-id"]
    assert entries["viclip"].hashed and not entries["clip-l14"].hashed
    assert not entries["consisid"].hashed
    # Concat-ID's README downloads the repository into `models`, so it has no folder of that name.
    assert not any("/models/" in str(file.url).partition("/resolve/")[2]
                   for file in entries["concat-id"].files)
    for one in entries.values():
        assert one.revision is None or len(one.revision) == 40


def test_list_says_what_is_unconfirmed_and_how_files_are_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry(server, monkeypatch, unconfirmed="its name")
    assert cli("weights", "list") == 0
    shown = capsys.readouterr()
    assert "published" in shown.out and "Unconfirmed of one: its name." in shown.err
    entry(server, monkeypatch, file={"sha256": None})
    assert cli("weights", "list") == 0
    shown = capsys.readouterr()
    assert "recorded" in shown.out and "Unconfirmed" not in shown.err


@pytest.mark.parametrize("fault", ["cut", "stall", "redirect", "error"])
def test_a_download_survives(fault: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    entry(server, monkeypatch)
    setattr(server.faults, fault, 2)
    path = downloads.get("one")
    assert path.read_bytes() == DATA and not path.with_name("net.bin.part").exists()
    if fault in ("cut", "stall"):
        assert [asked for _, asked in server.asked if asked], "it was resumed, not begun again"


def test_a_server_that_always_stops_leaves_what_came_for_the_next_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(server, monkeypatch)
    monkeypatch.setattr(resumed_download, "TRIES", 1)
    server.faults.cut, server.faults.error = 1, 9
    with pytest.raises(UserError, match=r"stopped after 0\.\d MB .*run the same command again"):
        downloads.get("one")
    server.faults.error = 0
    assert downloads.get("one").read_bytes() == DATA
    assert server.asked[-1][1] is not None


def test_a_wrong_byte_is_refused_and_nothing_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(server, monkeypatch)
    server.faults.wrong = 1
    with pytest.raises(UserError, match="does not have the published sha256"):
        downloads.get("one")
    assert published.states("one")[0].state == "missing"
    assert downloads.get("one").read_bytes() == DATA


def test_an_address_without_the_file_is_one_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(server, monkeypatch, file={"url": f"{server.address}/none"})
    with pytest.raises(UserError, match="answers 404; check the address"):
        downloads.get("one")


def test_without_a_published_hash_the_first_download_records_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry(server, monkeypatch, file={"sha256": None})
    assert cli("weights", "get", "one") == 0
    assert f"No sha256 is published for one/net.bin; recorded {SHA}" in capsys.readouterr().err
    assert cli("weights", "verify") == 0
    assert capsys.readouterr().out.startswith("recorded   one/net.bin")
    path = published.find_folder("one") / "net.bin"  # type: ignore[operator]
    path.write_bytes(DATA[:-1] + b"x")
    assert cli("weights", "verify", "one") == 1
    assert capsys.readouterr().out.startswith("damaged    one/net.bin")


def test_a_hub_file_is_downloaded_to_the_hubs_cache_and_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry(server, monkeypatch, hub="owner/repo", file={"url": None})
    assert cli("weights", "get", "one") == 0, capsys.readouterr().err
    assert cli("weights", "path", "one") == 0
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert path.read_bytes() == DATA and tmp_path / "hub" in path.parents
    count = len(server.asked)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli("weights", "get", "one") == 0 and len(server.asked) == count
    assert cli("weights", "verify", "one") == 0


def test_a_wrong_byte_from_the_hub_is_removed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(server, monkeypatch, hub="owner/repo", file={"url": None})
    server.faults.wrong = 1
    with pytest.raises(UserError, match="was removed; get it again"):
        downloads.get("one")
    assert downloads.get("one").read_bytes() == DATA


def test_offline_says_so_and_a_folder_stands_in(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    entry(server, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        downloads.get("one")
    with pytest.raises(UserError, match=r"There is no net\.bin of one"):
        downloads.get("one", tmp_path)
    (tmp_path / "net.bin").write_bytes(DATA)
    assert downloads.get("one", tmp_path).read_bytes() == DATA and not server.asked


def test_without_a_network_the_message_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(server, monkeypatch, file={"url": "http://127.0.0.1:9/net.bin"})  # nobody listens
    monkeypatch.setattr(resumed_download, "TRIES", 1)
    with pytest.raises(UserError, match=r"net\.bin cannot be reached; check the network, or bring"):
        downloads.get("one")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
                        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}")
    entry(server, monkeypatch, hub="owner/repo", file={"url": None})
    said = "one could not be downloaded .*; check the network and the disk"
    with pytest.raises(UserError, match=said):
        downloads.get("one")


def test_a_disk_that_is_full_while_a_folder_is_copied_is_one_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry(server, monkeypatch, hub="owner/other", folder=True, files=())
    (tmp_path / "one").mkdir()

    def full(source: Path, target: Path, **_: object) -> None:
        raise shutil.Error([(source, target, "[Errno 28] No space left on device")])

    monkeypatch.setattr(downloads.shutil, "copytree", full)
    with pytest.raises(DiskFull, match="is full; free some space"):
        downloads.get("one", tmp_path)


def test_a_mirror_serves_everything(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    entry(server, monkeypatch, hub="owner/other", file={"url": None})
    monkeypatch.setenv(downloads.MIRROR_VARIABLE, f"{server.address}/")
    assert downloads.get("one").read_bytes() == DATA
    assert [path for path, _ in server.asked] == ["/one/net.bin"]


def test_a_pack_comes_out_of_its_archive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("nested/net.bin", DATA)
    zipped = buffer.getvalue()
    server.files["one/pack.zip"] = zipped
    archive = {"url": f"{server.address}/one/pack.zip", "bytes": len(zipped),
               "sha256": hashlib.sha256(zipped).hexdigest()}
    entry(server, monkeypatch, archive=archive, file={"url": None})
    folder = downloads.get("one").parent
    assert [path.name for path in folder.iterdir()] == ["net.bin"]


def test_a_licence_that_excludes_commercial_use_is_accepted_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry(server, monkeypatch, non_commercial=True, licence="research only")
    assert cli("weights", "get", "one") == 2
    said = capsys.readouterr().err
    assert "research only" in said and "--accept-licence" in said and not server.asked
    assert cli("weights", "get", "one", "--accept-licence") == 0
    assert cli("weights", "get", "one") == 0


def test_a_cut_list_of_accepted_licences_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(published.CACHE_VARIABLE, str(tmp_path))
    downloads.agree("buffalo_l", accepted=True)
    path = published.store() / "accepted.json"
    path.write_text(path.read_text()[:-3])
    with pytest.raises(UserError, match="accepted.json is not valid JSON"):
        downloads.accepted_names()


def test_names_and_places_that_are_not_there(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry(server, monkeypatch)
    assert cli("weights", "get", "onne") == 2
    assert "did you mean 'one'?" in capsys.readouterr().err
    assert cli("weights", "path", "one") == 2
    assert "run `idbench weights get one`" in capsys.readouterr().err
    assert cli("weights", "verify", "one") == 1
    assert cli("weights", "list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out.partition("missing    one/net.bin\n")[2])
    assert row["name"] == "one" and row["here"] is False


def test_a_mirror_that_is_no_address_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mirror.example/a is not an address"):
        resumed_download.retrieve("mirror.example/a", None, tmp_path / "a")
