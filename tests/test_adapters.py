"""Import, export, inspect: what comes in is right or leaves nothing behind, what goes out others can use."""

import http.server
import json
import pickle
import shutil
import threading
import xml.dom.minidom
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.bank import SkillBank
from skillweave.base import TinyBase
from skillweave.delta import Factors, LowRank, Replacement
from skillweave.fitting import fit, materialise, row_norms
from skillweave.hub import is_hub_name
from skillweave.library import Library
from skillweave.likeness import cosines
from skillweave.peft_format import load_adapter, save_adapter

TOKENS = torch.tensor([[1, 20, 30, 40, 50]])


@pytest.fixture
def adapter(tmp_path, tiny, random_skill):
    """An adapter as somebody else would have it."""
    save_adapter(tmp_path / "wild" / "Invoice_Reader", random_skill(tiny), "tiny-32")
    return tmp_path / "wild" / "Invoice_Reader"


@pytest.fixture
def shelf(tmp_path):
    return tmp_path / "library"


def dora(skill, tiny):
    """A DoRA whose magnitudes are not those of the base."""
    lengths = {slot: row_norms(tiny.linears[slot].matrix, f) for slot, f in skill.factors.items()}
    return LowRank({slot: replace(f, magnitude=lengths[slot] * 1.3) for slot, f in skill.factors.items()})


def logits(base, skill):
    with torch.no_grad(), SkillBank(base, {"s": skill}).on():
        return base.logits(base.hidden(TOKENS)[0])


def test_an_adapter_becomes_a_skill_with_its_origin(cli, adapter, shelf, tiny):
    said = cli("import", adapter, "--library", shelf, "--json")
    report = json.loads(said.out)
    assert (said.code, report["name"], report["kind"], report["layers"], report["rank"]) == (0, "invoice-reader", "LoRA", 21, 3)
    assert report["shift"] > 0
    skill = Library(shelf).get("invoice-reader")
    known = skill.provenance
    assert known["base"] == {"name": "tiny-32", "digest": tiny.digest}
    assert known["method"] == "import" and known["config"]["source"] == "Invoice_Reader"
    assert sorted(known["config"]["files"]) == ["adapter_config.json", "adapter_model.safetensors"]
    assert known["config"]["adapter"]["r"] == 3
    assert Library(shelf).verify() == []
    assert torch.equal(logits(tiny, load_adapter(skill.adapter)), logits(tiny, load_adapter(adapter)))


def test_an_imported_skill_is_used_like_any_other(cli, adapter, shelf):
    cli("import", adapter, "--name", "one", "--library", shelf)
    said = cli("run", "one", "abc", "--library", shelf, "--max-new-tokens", "3")
    assert said.code == 0 and said.out


def test_the_only_adapter_below_a_folder_is_found(cli, adapter, shelf):
    assert cli("import", adapter.parent, "--name", "one", "--library", shelf).code == 0
    shutil.copytree(adapter, adapter.parent / "other")
    said = cli("import", adapter.parent, "--name", "two", "--library", shelf)
    assert (said.code, "holds 2 adapters: Invoice_Reader, other" in said.err) == (1, True)


def test_a_dora_can_be_made_plain(cli, adapter, shelf, tiny):
    skill = dora(load_adapter(adapter), tiny)
    save_adapter(adapter, skill, "tiny-32")
    assert json.loads(cli("import", adapter, "--name", "dora", "--library", shelf, "--json").out)["kind"] == "DoRA"
    report = json.loads(cli("import", adapter, "--name", "plain", "--materialise", "32", "--library", shelf, "--json").out)
    assert (report["kind"], report["rank"]) == ("LoRA", 32) and report["lost"] < 1e-3
    plain = load_adapter(Library(shelf).get("plain").adapter)
    plain.check_sum()
    assert torch.allclose(logits(tiny, plain), logits(tiny, skill), atol=1e-3)
    said = cli("merge", "dora", "plain", "--out", shelf / "x", "--library", shelf)
    assert (said.code, "a DoRA adapter cannot be scaled" in said.err, "--materialise" in said.err) == (1, True, True)


def test_what_is_lost_is_what_the_rank_leaves_out(tiny, random_skill):
    skill = dora(random_skill(tiny, slots=list(tiny.linears)[:3]), tiny)
    fitted = fit(tiny, "d", skill)
    whole, none = materialise(tiny, fitted, 99)
    cut, lost = materialise(tiny, fitted, 4)
    assert none == 0
    wanted = sum((whole.factors[s].dense() - cut.factors[s].dense()).square().sum().item() for s in skill.factors)
    assert lost == pytest.approx((wanted / whole.energy) ** 0.5, rel=1e-4)


def pickled(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def disguised(folder):
    (folder / "adapter_model.safetensors").write_bytes(pickle.dumps({"a": 1}))


def truncated(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def not_a_number(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[min(tensors)][0, 0] = torch.nan
    save_file(tensors, folder / "adapter_model.safetensors")


def nothing_in_it(folder):
    for file in folder.iterdir():
        file.unlink()


def nameless(folder):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))


@pytest.mark.parametrize(
    ("damage", "more", "words"),
    [
        (pickled, [], "has no adapter_model.safetensors"),
        (disguised, [], "is corrupt"),
        (truncated, [], "is truncated"),
        (not_a_number, [], "values that are not finite"),
        (nothing_in_it, [], "holds no adapter"),
        (shutil.rmtree, [], "is not there, not a folder with an adapter"),
        (nameless, [], "does not say which base it was made on"),
        (None, ["--base", "tiny-64"], "in tiny-64"),
        (None, ["--base", "nowhere/at-all/x"], "no folder `nowhere/at-all/x`"),
        (None, ["--name", "No!"], "cannot be the name of a skill"),
        (None, ["--materialise", "0"], "the rank is 0"),
        (None, ["--description", "x" * 1025], "the description has 1,025 characters"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(cli, adapter, shelf, damage, more, words):
    if damage:
        damage(adapter)
    said = cli("import", adapter, "--library", shelf, *more)
    assert said.code == 1 and words in said.err and said.out == ""
    assert not shelf.exists()


def test_all_linear_means_what_it_says(cli, adapter, shelf):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": "all-linear"}))
    assert cli("import", adapter, "--library", shelf).code == 0


def test_a_name_that_is_taken_is_kept_unless_replaced(cli, adapter, shelf):
    assert cli("import", adapter, "--name", "one", "--library", shelf).code == 0
    before = Library(shelf).get("one").digest
    truncated(adapter)
    said = cli("import", adapter, "--name", "one", "--library", shelf)
    assert (said.code, "`one` is already in" in said.err) == (1, True)
    assert cli("import", adapter, "--name", "one", "--replace", "--library", shelf).code == 1
    assert Library(shelf).get("one").digest == before


# the hub


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's HTTP as fetching takes: one model, and what its folder holds."""

    folder, asked, sha = None, [], "a" * 40

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        type(self).asked.append(self.path)
        path = self.path.split("?")[0]
        if path.startswith("/api/models/maker/reader"):
            files = {str(p.relative_to(self.folder)): p.stat().st_size for p in sorted(self.folder.rglob("*")) if p.is_file()}
            tree = [{"type": "file", "path": name, "size": size, "oid": f"{size:040}"} for name, size in files.items()]
            about = {
                "id": "maker/reader",
                "sha": self.sha,
                "siblings": [{"rfilename": name} for name in files],
                "private": False,
            }
            text = json.dumps(tree if "/tree/" in path else about).encode()
            return self.say(200, text, {"Content-Type": "application/json"}, body)
        file = self.folder / path.removeprefix(f"/maker/reader/resolve/{self.sha}/")
        if path.startswith("/maker/reader/resolve/") and file.is_file():
            return self.say(200, file.read_bytes(), {"ETag": f'"{file.stat().st_size}"', "X-Repo-Commit": self.sha}, body)
        self.say(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def say(self, code, data, headers, body):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(adapter, tmp_path):
    """Where a hub with the adapter is, also in a folder of its repository, next to files that nobody needs."""
    shutil.copytree(adapter, tmp_path / "repo" / "french")
    shutil.copytree(adapter, tmp_path / "repo", dirs_exist_ok=True)
    (tmp_path / "repo" / "training_args.bin").write_bytes(pickle.dumps(1))
    (tmp_path / "repo" / "model.safetensors").write_bytes(b"large")
    Hub.folder, Hub.asked = tmp_path / "repo", []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    server.shutdown()
    server.server_close()


def test_an_adapter_is_fetched_from_the_hub(process, hub, shelf, tiny, adapter):
    said = process("import", "maker/reader", "--library", str(shelf), **hub)
    assert (said.code, "reader" in said.out) == (0, True), said.err
    known = Library(shelf).get("reader").provenance["config"]
    assert (known["source"], known["revision"]) == ("maker/reader", "a" * 40)
    fetched = [path for path in Hub.asked if "/resolve/" in path]
    assert fetched and not any("training_args" in path or path.endswith("/model.safetensors") for path in fetched)
    there = load_adapter(Library(shelf).get("reader").adapter)
    assert torch.equal(logits(tiny, there), logits(tiny, load_adapter(adapter)))


def test_an_adapter_in_a_folder_of_a_repository(process, hub, shelf):
    said = process("import", "maker/reader/french", "--library", str(shelf), **hub)
    assert (said.code, Library(shelf).names()) == (0, ["french"])


def test_what_the_hub_does_not_have(process, hub, shelf):
    said = process("import", "maker/writer", "--library", str(shelf), **hub)
    assert (said.code, "`maker/writer` is neither a folder nor an adapter that could be fetched" in said.err) == (1, True)
    assert not shelf.exists()


def test_names_on_a_hub():
    assert all(map(is_hub_name, ["a/b", "a/b/c", "maker-1/x.y_z"]))
    assert not any(map(is_hub_name, ["a", "./a/b", "../b", "/a/b", "~/a", "a/..", "a/b/..", "a//b", "a b/c"]))


# export


def test_a_skill_leaves_with_a_card(cli, adapter, shelf, tmp_path):
    cli("import", adapter, "--name", "one", "--library", shelf, "--description", "Reads invoices.")
    score = {
        "task": "invoice",
        "split": "test",
        "metric": "exact",
        "value": 0.912,
        "low": 0.9,
        "high": 0.93,
        "n": 200,
        "seed": 0,
    }
    Library(shelf).record("one", [score])
    said = cli("export", "one", "--out", tmp_path / "out", "--library", shelf)
    assert said.code == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith('---\nbase_model: "tiny-32"\nlibrary_name: "peft"\n')
    assert "# one\n\nReads invoices." in text and "| invoice | test | exact | 0.912 | 0.900 | 0.930 | 200 | 0 |" in text
    assert "PeftModel.from_pretrained(base, 'out')" in text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = cli("import", tmp_path / "out", "--name", "two", "--library", shelf)
    assert again.code == 0


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_code_of_the_card_runs(cli, adapter, shelf, tmp_path, monkeypatch, tiny):
    pytest.importorskip("peft")
    cli("import", adapter, "--name", "one", "--library", shelf)
    monkeypatch.chdir(tmp_path)
    cli("export", "one", "--out", "out", "--library", shelf)
    names: dict = {}
    exec((tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0], names)
    with torch.no_grad():
        theirs = names["model"](input_ids=TOKENS).logits[0]
    assert torch.allclose(theirs, logits(tiny, load_adapter(adapter)), rtol=1e-5, atol=1e-5)


def test_a_card_without_scores_says_nothing_of_them(cli, adapter, shelf, tmp_path):
    cli("import", adapter, "--name", "one", "--library", shelf)
    cli("export", "one", "--out", tmp_path / "out", "--library", shelf)
    assert "Measured" not in (tmp_path / "out" / "README.md").read_text()
    said = cli("export", "one", "--out", tmp_path / "out", "--library", shelf)
    assert (said.code, "is already there" in said.err) == (1, True)


# inspect


def test_energy_by_layer_is_that_of_the_change(cli, adapter):
    about = json.loads(cli("inspect", adapter, "--json").out)["adapters"][0]
    wanted: dict[str, float] = {}
    for slot, f in load_adapter(adapter).factors.items():
        wanted[slot.split(".")[2]] = wanted.get(slot.split(".")[2], 0) + f.dense().square().sum().item()
    assert about["energy_by_layer"] == pytest.approx(wanted, rel=1e-4)
    assert (about["kind"], about["base"], about["rank"], about["parameters"]) == (
        "LoRA",
        "tiny-32",
        3,
        load_adapter(adapter).parameters,
    )
    assert about["modules"] == dict.fromkeys(about["modules"], 3) and len(about["modules"]) == 7


def test_several_are_compared(cli, adapter, shelf, tiny, random_skill, tmp_path):
    cli("import", adapter, "--name", "one", "--library", shelf)
    slots = list(tiny.linears)[:7]
    save_adapter(tmp_path / "two", random_skill(tiny, 5, slots=slots), "tiny-32")
    said = cli("inspect", "one", tmp_path / "two", "--library", shelf, "--json", "--svg", tmp_path / "map.svg")
    assert said.code == 0, said.err
    report = json.loads(said.out)
    wanted = cosines([load_adapter(adapter), load_adapter(tmp_path / "two")])
    assert torch.allclose(torch.tensor(report["cosine"]), wanted.float(), atol=1e-5)
    assert report["overlap"] == [[1, pytest.approx(1 / 3)], [pytest.approx(1 / 3), 1]]
    drawn = xml.dom.minidom.parse(str(tmp_path / "map.svg"))
    assert len(drawn.getElementsByTagName("rect")) == 5
    table = cli("inspect", "one", tmp_path / "two", "--library", shelf).out
    assert "1.000 (100%)" in table and "(33%)" in table


def test_inspect_shows_every_kind_without_a_base(cli, tiny, random_skill, tmp_path, monkeypatch):
    monkeypatch.setattr("skillweave.base.load_base", None)
    plain = random_skill(tiny)
    rows = Replacement(torch.ones(2, 32), torch.tensor([3, 4]))
    kinds = {
        "DoRA": dora(plain, tiny),
        "LoRA + biases": LowRank({s: replace(f, bias=torch.ones(len(f.b))) for s, f in plain.factors.items()}),
        "LoRA + new tokens": LowRank(plain.factors, {"model.embed_tokens.weight": rows}),
        "LoRA + new weights": LowRank(plain.factors, {"lm_head.weight": Replacement(torch.ones(99, 32))}),
        "LoRA + embeddings": LowRank(
            {**plain.factors, "model.embed_tokens": Factors(torch.ones(2, 99), torch.ones(32, 2), lookup=True)}
        ),
    }
    for kind, skill in kinds.items():
        save_adapter(tmp_path / "x", skill, "tiny-32")
        said = cli("inspect", tmp_path / "x", "--svg", tmp_path / "bars.svg")
        assert said.code == 0 and f"{kind} on tiny-32" in said.out
        bars = len(xml.dom.minidom.parse(str(tmp_path / "bars.svg")).getElementsByTagName("rect")) - 1
        assert bars == (4 if "embeddings" in kind else 3)


def test_what_cannot_be_compared(cli, adapter, tmp_path, shelf, random_skill):
    save_adapter(tmp_path / "wide", random_skill(TinyBase(48)), "tiny-48")
    for words, sentence in [
        ([adapter, tmp_path / "wide"], "take adapters of one model"),
        ([adapter, adapter], "an adapter is named twice"),
        ([tmp_path / "none" / "x"], "is not a folder with an adapter"),
        (["maker/reader"], "maker/reader is not a folder with an adapter"),
        (["nobody"], "there is no library"),
    ]:
        said = cli("inspect", *words, "--library", shelf)
        assert said.code == 1 and sentence in said.err and said.out == ""


@pytest.mark.parametrize("method", ["ties", "magnitude", "knots", "dare", "della", "breadcrumbs"])
def test_biases_are_not_thinned_out(cli, tiny, random_skill, tmp_path, method):
    skill = random_skill(tiny, slots=list(tiny.linears)[:2])
    biased = LowRank({s: replace(f, bias=torch.ones(len(f.b))) for s, f in skill.factors.items()})
    save_adapter(tmp_path / "one", biased, "tiny-32")
    said = cli("merge", tmp_path / "one", "--method", method, "--out", tmp_path / "out")
    assert (said.code, "an adapter with a bias" in said.err, (tmp_path / "out").exists()) == (1, True, False)
    assert cli("merge", tmp_path / "one", tmp_path / "one", "--weights", "0.5", "0.5", "--out", tmp_path / "out").code == 0
    merged = load_adapter(tmp_path / "out")
    slot = min(merged.factors)
    f = merged.factors[slot]
    assert torch.allclose(f.bias * f.scale, torch.ones(len(f.b)) * skill.factors[slot].scale)


def test_what_has_no_sum_is_refused_before_anything_is_learned(cli, adapter, shelf, tiny):
    save_adapter(adapter, dora(load_adapter(adapter), tiny), "tiny-32")
    cli("import", adapter, "--name", "dora", "--library", shelf)
    said = cli("compose", "dora", "--task", "date", "--library", shelf, "--shots", "2", "--steps", "99999")
    assert (said.code, "a DoRA adapter cannot be scaled" in said.err) == (1, True)
