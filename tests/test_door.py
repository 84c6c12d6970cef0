"""The door: no pickle, link, special file or false weight file gets in, and each refusal names the file."""

import json
import os
import pickle
import socket
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from skillweave import door
from skillweave.door import check_safetensors, scan_door
from skillweave.errors import BadSkill


@pytest.fixture
def skill(tmp_path):
    folder = tmp_path / "skill"
    (folder / "adapter").mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: skill\ndescription: x\n---\n")
    tensors = {"a": np.zeros((3, 4), np.float32), "b": np.ones(5, np.float16), "empty": np.zeros((0, 2), np.int8)}
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter" / "adapter_config.json").write_text('{"r": 4}')
    return folder


def refused(folder, sentence):
    with pytest.raises(BadSkill) as caught:
        scan_door(folder)
    assert sentence in caught.value.message
    assert caught.value.hint


def write_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_lets_a_good_skill_in(skill):
    (skill / "assets").mkdir()
    with zipfile.ZipFile(skill / "assets" / "form.docx", "w") as document:
        document.writestr("word/document.xml", "<w/>")
    (skill / ".git").mkdir()
    os.symlink("/etc/passwd", skill / ".git" / "link")  # never copied
    scan_door(skill)
    (skill / "bad.pkl").write_bytes(b"x")
    refused(skill, "bad.pkl is a pickle")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".ckpt", ".PT"])
def test_refuses_a_pickle_by_its_name(skill, suffix):
    (skill / "adapter" / f"adapter_model{suffix}").write_bytes(b"any")
    refused(skill, f"adapter_model{suffix} is a pickle")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_refuses_a_pickle_by_its_first_bytes(skill, protocol):
    (skill / "innocent.txt").write_bytes(pickle.dumps({"a": 1}, protocol))
    refused(skill, "innocent.txt is a pickle")


@pytest.mark.parametrize(("place", "member"), [("x.zip", "archive/data.pkl"), ("adapter/x.dat", "any.txt")])
def test_refuses_archives_that_hold_or_pass_for_weights(skill, place, member):
    with zipfile.ZipFile(skill / place, "w") as archive:
        archive.writestr(member, "x")
    refused(skill, f"{place} is a pickle")


def test_refuses_links_special_files_and_unsafe_names(skill, tmp_path, monkeypatch):
    os.symlink(skill / "SKILL.md", skill / "link.md")
    refused(skill, "link.md is a link")
    os.unlink(skill / "link.md")
    os.mkfifo(skill / "pipe")
    refused(skill, "pipe is neither a file nor a folder")
    os.unlink(skill / "pipe")
    monkeypatch.chdir(skill)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        refused(skill, "s is neither")
    os.unlink(skill / "s")
    for name in ("a\x1b[31m", "a\\b", "a\nb"):
        (skill / name).write_text("x")
        refused(skill, "unsafe name")
        os.unlink(skill / name)
    scan_door(skill)


def test_refuses_too_many_files_and_too_many_bytes(skill, monkeypatch):
    monkeypatch.setattr(door, "MAX_FILES", 2)
    refused(skill, "more than 2 files")
    monkeypatch.setattr(door, "MAX_FILES", 10)
    with open(skill / "big.dat", "wb") as file:
        file.truncate((2 << 30) + 1)  # sparse
    refused(skill, "more than 2 GiB")


def test_refuses_every_truncation_of_a_weight_file(skill):
    path = skill / "adapter" / "adapter_model.safetensors"
    whole = path.read_bytes()
    check_safetensors(path)
    lengths = [0, 1, 7, 8, 9, 40, len(whole) // 2, len(whole) - 1]
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(BadSkill, match=r"adapter_model.safetensors is (truncated|corrupt)"):
            check_safetensors(path)
    path.write_bytes(whole + b"x")
    refused(skill, "is corrupt")


@pytest.mark.parametrize(
    ("header", "data", "sentence"),
    [
        (b"not json", b"", "header is not JSON"),
        (b"[]", b"", "JSON object"),
        (b"\xff\xff", b"", "header is not JSON"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234", "do not agree"),
        ({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"1234", "do not agree"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, b"1234", "do not agree"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"1234", "do not agree"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", "do not agree"),
        ({"a": [1]}, b"", "do not agree"),
        ({k: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for k in "ab"}, b"1234", "overlap"),
        ({"a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}, b"1234", "overlap or leave a gap"),
        ({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, b"1234", "is truncated"),
        ({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"1234", "is corrupt"),
    ],
)
def test_refuses_a_header_that_does_not_describe_its_file(skill, header, data, sentence):
    write_header(skill / "adapter" / "adapter_model.safetensors", header, data)
    refused(skill, sentence)


def test_refuses_half_an_adapter(skill):
    (skill / "adapter" / "adapter_config.json").write_text("{")
    refused(skill, "adapter_config.json is corrupt: it is not JSON")
    (skill / "adapter" / "adapter_config.json").unlink()
    refused(skill, "has adapter_model.safetensors but no adapter_config.json")


def test_refuses_what_is_no_folder(tmp_path):
    refused(tmp_path / "nothing", "is not a folder")


def test_says_which_file_cannot_be_read(skill, monkeypatch):
    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(door, "_check_file", denied)
    refused(skill, "SKILL.md cannot be read: Permission denied")
