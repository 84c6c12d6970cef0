"""The catalog holds 56 papers, each row complete, valid and findable."""

import re
from pathlib import Path

import pytest

from skillweave.errors import NotFound
from skillweave.papers import catalog, reproduction

ROOT = Path(__file__).resolve().parent.parent

ROOMS = {"compose", "curriculum", "guard", "learn", "measure", "serve", "studio"}
WORLDS = {"worlds/cad", "worlds/control", "worlds/motion", "worlds/music", "worlds/vision"}


def test_there_are_56_papers_in_order():
    assert [paper.number for paper in catalog.load()] == list(range(1, 57))


@pytest.mark.parametrize("paper", catalog.load(), ids=lambda paper: str(paper.number))
def test_a_row_is_complete_and_valid(paper):
    assert paper.title == paper.title.strip() != ""
    assert re.fullmatch(r"\d{4}\.\d{5}", paper.arxiv)
    assert set(paper.rooms) <= ROOMS | WORLDS
    assert 80 < len(paper.what) < 300 and paper.what.endswith((".", "?"))
    assert paper.state in catalog.STATES
    assert (paper.command == "") == (paper.state == "planned")


def test_no_two_rows_say_the_same():
    for field in ("title", "arxiv", "what"):
        assert len({getattr(paper, field) for paper in catalog.load()}) == 56, field


def test_only_what_the_quickstart_uses_is_called_in_use():
    in_use = {paper.number: paper.command for paper in catalog.load() if paper.state == "in use"}
    assert in_use == {}


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("47", [47]),
        (" 47 ", [47]),
        ("4", [4]),
        ("57", []),
        ("TASK vectors", [47]),
        ("vectors task", [47]),
        ("guard catalogue", [55]),
        ("no such words", []),
    ],
)
def test_search_wants_every_word_in_any_case_and_takes_a_number_exactly(query, numbers):
    assert [paper.number for paper in catalog.search(query)] == numbers


def test_an_empty_search_lists_all():
    assert catalog.search() == list(catalog.load())


def test_search_sees_title_text_and_room():
    for number, word in ((16, "SynthWorlds"), (55, "credentials"), (13, "worlds/cad")):
        assert number in [paper.number for paper in catalog.search(word)]


def test_get_returns_the_row_and_its_address():
    assert catalog.get(47).title == "Knowledge Composition using Task Vectors with Learned Anisotropic Scaling"
    assert catalog.get(47).url == "https://arxiv.org/abs/2407.02880"


@pytest.mark.parametrize("number", [0, 57, -1])
def test_get_says_what_to_do_about_a_wrong_number(number):
    with pytest.raises(NotFound, match=f"no paper `{number}`") as caught:
        catalog.get(number)
    assert "skillweave papers" in caught.value.hint


def test_what_is_reproduced_has_a_file_a_result_and_a_page():
    done = [paper for paper in catalog.load() if paper.state == "reproduced"]
    assert done
    for paper in done:
        assert reproduction.load(paper.number).CRITERION and paper.command == f"skillweave reproduce {paper.number}"
        assert (ROOT / "results" / f"p{paper.number:02}.json").is_file() and (ROOT / f"docs/papers/{paper.number}.md").is_file()
