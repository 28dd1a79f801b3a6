"""The registry's archive is unpacked by name and content alone: nothing of it lands elsewhere or leads elsewhere."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from tradetape.console.errors import DownloadFailed
from tradetape.console.local import jars
from tradetape.console.local.jars import Jar
from tradetape.console.local.registry import fetched_and_unpacked, unpack


def packed(folder: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    path = folder / "server.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o6777
                archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_files_and_folders_come_out_as_they_went_in_without_their_rights(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("lib/empty")
    folder.type = tarfile.DIRTYPE
    path = packed(tmp_path, folder, ("run.jar", b"one"), ("./lib/main/two.jar", b"two"))
    into = tmp_path / "into"
    into.mkdir()
    unpack(path, into)
    found = {str(one.relative_to(into)): one.read_bytes() for one in into.rglob("*") if one.is_file()}
    assert found == {"run.jar": b"one", "lib/main/two.jar": b"two"}
    assert (into / "lib" / "empty").is_dir()
    assert (into / "run.jar").stat().st_mode & 0o6111 == 0


@pytest.mark.parametrize("name", ["../outside", "lib/../../outside", "/tmp/outside-of-the-archive"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DownloadFailed, match="no file of its own folder"):
        unpack(packed(tmp_path, (name, b"evil")), into)
    assert not (tmp_path / "outside").exists()
    assert not Path("/tmp/outside-of-the-archive").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DownloadFailed, match="holds way"):
        unpack(packed(tmp_path, link("way", kind, str(tmp_path))), into)
    assert list(into.iterdir()) == []


def test_what_a_killed_start_left_is_cleared_and_only_the_whole_folder_stays(tmp_path: Path) -> None:
    repository, folder = tmp_path / "maven", tmp_path / "registry" / "server"
    content = packed(tmp_path, ("run.jar", b"one"), ("lib/two.jar", b"two")).read_bytes()
    archive = Jar("org.example:server:3.0:tar.gz:all", hashlib.sha256(content).hexdigest())
    archive.path(repository).parent.mkdir(parents=True)
    archive.path(repository).write_bytes(content)
    half = tmp_path / "registry" / "server.new.abc"
    half.mkdir(parents=True)
    (half / "run.jar").write_bytes(b"o")
    fetched_and_unpacked(archive, repository, folder)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".jar"]
    assert sorted(files) == [folder / "lib" / "two.jar", folder / "run.jar"]
    assert not archive.path(repository).exists()
    fetched_and_unpacked(archive, repository, folder)


def test_the_shipped_list_names_one_archive() -> None:
    (archive,) = jars.listed("registry")
    assert archive.coordinate == "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all"
    assert len(bytes.fromhex(archive.sha256)) == 32
