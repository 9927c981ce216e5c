"""Pictures in and out without loss; files written wholly or not at all."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.core.errors import InputError
from darkroom.core.pictures import contact_sheet, from_bytes, open_picture, save_png, to_bytes, to_pictures
from darkroom.core.record import append_line, atomic, read_json, read_lines, writable_folder, write_json


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_to_pictures_and_back(channels: int) -> None:
    levels = torch.randint(256, (2, channels, 5, 7), dtype=torch.uint8)
    pictures = to_pictures(from_bytes(levels))
    again = torch.stack([to_bytes(picture, channels) for picture in pictures])
    assert torch.equal(again, levels)


def test_values_outside_are_clipped() -> None:
    picture = to_pictures(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2))[0]
    assert list(picture.get_flattened_data()) == [0, 255]


def test_a_sheet_holds_every_picture() -> None:
    pictures = [Image.new("RGB", (8, 6), (place, 0, 0)) for place in range(5)]
    sheet = contact_sheet(pictures, columns=3)
    assert sheet.size == (2 + 3 * 10, 2 + 2 * 8)
    assert sheet.getpixel((2, 2)) == (0, 0, 0)
    assert sheet.getpixel((12, 10)) == (4, 0, 0)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_png_keeps_its_words(tmp_path: Path) -> None:
    path = save_png(Image.new("RGB", (4, 4)), tmp_path / "new" / "a.png", metadata={"darkroom": "é 1 \udcff"})
    assert open_picture(path).info["darkroom"] == "é 1 \\udcff"
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_picture_is_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="not a readable picture"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="no such picture"):
        open_picture(tmp_path / "b.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(InputError, match=rf"{name}: not a readable picture \(it is no file\)"):
            open_picture(tmp_path / name)


def test_a_broken_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": 1})
    with pytest.raises(FileNotFoundError), atomic(path) as temporary:
        temporary.with_name("absent").rename(temporary)
    assert read_json(path) == {"kept": 1}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"{", b"\xff", b"[" * 10**6])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "report.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"report\.json: not JSON that can be read"):
        read_json(tmp_path / "report.json")


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_lines(log) == []
    append_line(log, {"step": 1})
    with log.open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_lines(log) == [{"step": 1}]
    log.write_bytes(b'{"step": 1}\n\xff\xfe\x00\n7\n{"step": 2}\n')
    assert read_lines(log) == [{"step": 1}, {"step": 2}]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        writable_folder(tmp_path / "file" / "below")
