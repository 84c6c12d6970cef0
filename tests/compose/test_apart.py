"""Compositions whose parts stay apart, from the library: saved, used again, and refused when they cannot be trusted."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave import verbs
from skillweave.compose import KINDS
from skillweave.compose.apart import TENSORS
from skillweave.composition import ABOUT
from skillweave.errors import BadOption, BadSkill
from skillweave.library import Library
from skillweave.methods import resolve
from skillweave.peft_format import load_adapter

OPTIONS = {"context": {"steps": 3, "batch": 4}, "arrow": {}, "router": {"steps": 3, "batch": 4}}
READERS = {"context": KINDS["context"], "arrow": KINDS["routed"], "router": KINDS["routed"]}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A library of two skills and what each method makes of them."""
    folder = tmp_path_factory.mktemp("apart")
    for name in ("one", "two"):
        rows = [{"prompt": f"{name} {i}\n", "completion": str(i)[::-1] + name} for i in range(40)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {"steps": 4, "batch": 4, "lr": 3e-2}
        verbs.learn(name, library=folder / "library", data=folder / f"{name}.jsonl", base="tiny", options=options)
    both = [line for name in ("one", "two") for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    (folder / "both.jsonl").write_text("\n".join(both) + "\n")
    for method, options in OPTIONS.items():
        how = {"data": folder / "both.jsonl", "method": method, "options": options, "save": method, "shots": 10}
        report = verbs.compose(["one", "two"], library=folder / "library", **how)
        assert set(report.alpha) == {"one", "two"}
        assert all(row["low"] - 1e-6 <= row["mean"] <= row["high"] + 1e-6 for row in report.alpha.values())
    return folder / "library"


@pytest.mark.parametrize("method", OPTIONS)
def test_a_saved_one_answers_as_it_did_and_holds_its_parts(shelf, tiny, method):
    skill = Library(shelf).get(method)
    assert skill.kind == "composition" and [p["name"] for p in skill.provenance["parents"]] == ["one", "two"]
    for name in ("one", "two"):
        saved, own = load_adapter(skill.path / "parts" / name, name), load_adapter(shelf / name / "adapter", name)
        assert all(torch.equal(tensor, own.tensors()[key]) for key, tensor in saved.tensors().items())
    texts = ["one 3", "two 12", "one 777"]
    answers = verbs.run(method, texts, library=shelf, max_new_tokens=5).answers
    use = resolve(READERS[method]).load(skill.path, tiny, method)
    assert list(answers) == [a.strip() for a in use.generate([skill.template.replace("{input}", t) for t in texts], 5)]
    assert len(verbs.measure([method], library=shelf, data=shelf.parent / "both.jsonl", n=80).rows) == 1


@pytest.mark.parametrize("method", OPTIONS)
def test_one_that_depends_on_its_input_is_no_part_of_a_sum(shelf, method):
    with pytest.raises(BadOption, match=rf"`{method}` \(\w+\) is not a change of weights that could be added to others"):
        verbs.measure([f"{method}+one"], library=shelf, data=shelf.parent / "both.jsonl")
    with pytest.raises(BadOption, match=f"`{method}` .* could be a part of others"):
        verbs.compose([method, "one"], library=shelf, data=shelf.parent / "both.jsonl", method="sum")


def about(folder, **changes):
    found = json.loads((folder / ABOUT).read_text()) | changes
    (folder / ABOUT).write_text(json.dumps(found))


def tensors(folder, **changes):
    found = load_file(folder / TENSORS) | changes
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, folder / TENSORS)


BROKEN = [
    ("context", lambda f: about(f, skills=[]), "does not name its skills"),
    ("context", lambda f: about(f, skills=["one", "one"]), "does not name its skills"),
    ("context", lambda f: about(f, skills=["one", "../two"]), "does not name its skills"),
    ("context", lambda f: about(f, skills="one"), "does not name its skills"),
    ("context", lambda f: about(f, skills=[1, 2]), "does not name its skills"),
    ("context", lambda f: about(f, skills=["one"]), "is of shape"),
    ("context", lambda f: about(f, hidden=None), "hidden is None, but it has to be a number"),
    ("context", lambda f: about(f, hidden=3), "is of shape"),
    ("context", lambda f: tensors(f, outer=None), "`outer` .* is missing"),
    ("context", lambda f: tensors(f, constant=torch.tensor([1.0, float("nan")])), "not finite in `constant`"),
    ("context", lambda f: (f / TENSORS).unlink(), "`context` has no strengths.safetensors"),
    ("context", lambda f: (f / TENSORS).write_bytes(b"no"), "is truncated"),
    ("context", lambda f: shutil.rmtree(f / "parts" / "two"), "`two` has no adapter_config.json"),
    ("arrow", lambda f: about(f, top_k=3), "does not say how to route"),
    ("arrow", lambda f: about(f, top_k=1.5), "does not say how to route"),
    ("arrow", lambda f: about(f, temperature=0), "does not say how to route"),
    ("arrow", lambda f: about(f, temperature="hot"), "temperature is 'hot'"),
    ("router", lambda f: about(f, absolute=1), "does not say how to route"),
    ("router", lambda f: tensors(f, **{"model.layers.0.mlp.up_proj": torch.zeros(2, 3)}), "up_proj` .* is of shape"),
]


@pytest.mark.parametrize(("method", "break_it", "said"), BROKEN, ids=range(len(BROKEN)))
def test_what_cannot_be_trusted_is_refused(shelf, tiny, tmp_path, method, break_it, said):
    folder = tmp_path / method
    shutil.copytree(shelf / method, folder)
    resolve(READERS[method]).load(folder, tiny, method)
    break_it(folder)
    with pytest.raises(BadSkill, match=said):
        resolve(READERS[method]).load(folder, tiny, method)


def test_each_kind_has_a_reader():
    assert {json_kind for json_kind in READERS} == set(OPTIONS) and set(READERS.values()) <= set(KINDS.values())
    assert len(KINDS) == 4 and all(callable(resolve(target).load) for target in KINDS.values())
