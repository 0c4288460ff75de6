"""`out=` and its like: links, pipes, devices, folders, files that the command itself reads, disks that are full."""

import errno
import os
import resource
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnnbench.utils import named_files
from cnnbench.utils.errors import UserError
from cnnbench.utils.named_files import check_output, common_folder, output, typed_path
from tests.helpers.data import picture
from tests.helpers.runs import Ran
from tests.helpers.trained import colour_run

NULL, FULL, ZERO_DISK = os.makedev(1, 3), os.makedev(1, 7), os.makedev(7, 250)


def write(path: Path | str, text: str = "new") -> None:
    with output("out", path) as file:
        file.write_text(text)


def node(path: Path, kind: int, device: int) -> Path:
    """A device of the test's own."""
    try:
        os.mknod(path, 0o644 | kind, device)
        if kind == stat.S_IFCHR:
            path.open("wb").close()
    except PermissionError:
        pytest.skip("only root may make a device here")
    return path


@contextmanager
def reader(pipe: Path) -> Iterator[list[str]]:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(pipe.read_text()))
    thread.start()
    yield said
    thread.join()


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / ("long" * 60 + ".csv")
    file.write_text("old")
    file.chmod(0o640)
    other = tmp_path / "other"
    other.hardlink_to(file)
    with pytest.raises(RuntimeError, match="half"), output("out", file) as beside:
        beside.write_text("ne")
        raise RuntimeError("half")
    assert file.read_text() == "old"
    write(file)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o640)
    assert other.read_text() == "old"  # its name was not written to
    assert sorted(tmp_path.iterdir()) == sorted([file, other])


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "x.csv", tmp_path / "link"
    link.symlink_to("far/x.csv")
    for text in ("first", "second"):  # the target is not there at first
        write(link, text)
        assert (link.is_symlink(), target.read_text()) == (True, text)
    assert list(target.parent.iterdir()) == [target]


def test_a_named_pipe_is_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with reader(pipe) as said:
            write(path)
        assert said == ["new"] and stat.S_ISFIFO(pipe.stat().st_mode)
    monkeypatch.setattr(named_files, "READER", 0.1)
    with pytest.raises(UserError, match="no program reads from it"):
        write(pipe)


def test_a_character_device_is_written_into(tmp_path: Path) -> None:
    null = node(tmp_path / "null", stat.S_IFCHR, NULL)
    write(null)
    assert stat.S_ISCHR(null.stat().st_mode)
    full = node(tmp_path / "full", stat.S_IFCHR, FULL)
    with pytest.raises(UserError, match=f"cannot write there: {os.strerror(errno.ENOSPC)}"):
        write(full)


def test_what_is_no_file_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    disk = node(tmp_path / "disk", stat.S_IFBLK, ZERO_DISK)
    with socket.socket(socket.AF_UNIX) as own:
        own.bind("socket")
    Path("loop").symlink_to("loop")
    Path("file").touch()
    for given, words in {
        ".": "out=. is a folder", "/": "out=/ is a folder", "..": "is a folder", "new/": "is a folder",
        "": "has no value", "no/x.csv": "there is no folder no", "file/x.csv": "cannot write there: Not a directory",
        "x" * 300: "cannot write there: File name too long", "loop": "cannot write there: Too many levels",
        "~nosuch/x": "there is no user nosuch", str(disk): "is a disk", "socket": "is a socket",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=words):
            check_output("out", given)
    assert stat.S_ISBLK(disk.stat().st_mode)


def test_a_command_does_not_overwrite_what_it_reads(tmp_path: Path) -> None:
    file, link = tmp_path / "a.png", tmp_path / "b.png"
    file.touch()
    link.symlink_to(file)
    for given in (file, link, tmp_path / "." / "a.png"):
        with pytest.raises(UserError, match="is a file that this command reads"):
            check_output("sheet", given, ["no", tmp_path, file])
    check_output("sheet", tmp_path / "c.png", [file])


def test_what_is_printed_into_a_file_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x.csv").open("w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        with pytest.raises(UserError, match="goes there already"):
            check_output("out", tmp_path / "x.csv")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(UserError, match=r"out=.*cannot write there: File too large"):
            write(file, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_predict_writes_into_pipes_and_spares_its_images(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    os.mkfifo("pipe.csv")
    picture(0).save("a.png")
    picture(0).save("b-2.png")
    command = ("predict", "a.png", f"weights={colour_run()}", "device=cpu")
    with reader(Path("pipe.csv")) as said:
        assert cnnbench(*command, "out=pipe.csv").code == 0
    assert said[0].startswith("file,rank,class")
    before = Path("a.png").read_bytes()
    for given in ("out=a.png", "sheet=a.png", "out=./a.png", f"out={colour_run()}/checkpoints/last.pt"):
        ran = cnnbench(*command, given, *(["weights=" + given[4:]] if given.endswith(".pt") else []))
        assert ran.code == 2 and "is a file that this command reads" in ran.err, ran.err
    many = [f"{number}.png" for number in range(40)]
    for name in many:
        os.link("a.png", name)
    ran = cnnbench("predict", *many, "b-2.png", f"weights={colour_run()}", "device=cpu", "sheet=b.png")
    assert ran.code == 2 and "sheet=b-2.png is a file that this command reads" in ran.err, ran.err
    assert Path("a.png").read_bytes() == before and not Path("b.png").exists()


def test_a_path_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert typed_path("~/x") == Path("/home/me/x")
    assert typed_path("./~nosuch/x") == Path("~nosuch/x")
    with pytest.raises(UserError, match=r"no user nosuch; for a folder of that name write \./~nosuch/x"):
        typed_path("~nosuch/x")


def test_the_folder_that_files_share() -> None:
    assert common_folder(["a/b/c", "a/b/d"]) == "a/b"
    assert common_folder(["a/b", "/a/b"]) == "" == common_folder(["a", "b"])
