"""What installs the project: the pins, and the script that finds a Python."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_constraints_pin_every_dependency_exactly():
    import tomllib

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["torch"] == "2.13.0" and "trl" not in pins
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["docs"] + project["optional-dependencies"]["dev"][1:]
    assert len(wanted) >= 20
    assert {w.split("=")[0].split(">")[0].split("<")[0] for w in wanted} - set(pins) == set()


def make_venv(tmp_path: Path, *pythons: str) -> subprocess.CompletedProcess:
    command = ["sh", str(ROOT / "scripts" / "make_venv.sh"), str(tmp_path / "venv")]
    environment = {"PYTHON": " ".join(pythons), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def fake_python(folder: Path, name: str, fails_on: str) -> str:
    """A program that behaves like Python, but fails when its arguments match `fails_on`, and makes environments in no time."""
    path = folder / name
    venv = '*"-m venv"*) for last; do :; done; mkdir -p "$last"; touch "$last/made"; exit 0;;'
    path.write_text(f'#!/bin/sh\ncase "$*" in {fails_on}) exit 1;; {venv} esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_no_python_that_fits_is_said_clearly(tmp_path):
    said = make_venv(tmp_path, "no-such-python", fake_python(tmp_path, "old", "*version_info*"))
    assert said.returncode == 1 and not (tmp_path / "venv").exists()
    assert said.stderr.startswith("skillweave needs Python 3.11 or newer, and none of these is one: no-such-python ")


def test_an_old_python_is_passed_over(tmp_path):
    old, new = fake_python(tmp_path, "old", "*version_info*"), fake_python(tmp_path, "new", "nothing")
    said = make_venv(tmp_path, old, new)
    assert (said.returncode, said.stderr) == (0, "") and said.stdout.endswith("/new)\n")
    assert (tmp_path / "venv" / "made").exists()


def test_a_python_that_cannot_make_environments_is_said_clearly(tmp_path):
    said = make_venv(tmp_path, fake_python(tmp_path, "bare", '*ensurepip*|*"-m pip"*'))
    assert said.returncode == 1 and not (tmp_path / "venv").exists()
    assert said.stderr.endswith("hint: Debian, Ubuntu: sudo apt install python3-venv\n")
