"""The seam to models: generation that does not depend on its company, weights from a seed, folders and hub names."""

import json
import shutil

import pytest
import torch

from skillweave.base import TinyBase, edited, folder_digest, load_base
from skillweave.errors import BadBase, BadData, BadOption
from skillweave.gemma import NAME

PROMPTS = ["", "a", "hgfedcba", "abc", "c", "fff", "gh", "deadbeef", "cab", "bbbbbbbbbbbb", "hhe", "ag"]


@pytest.fixture(scope="module")
def talker(loud):
    """A base whose answers end at many different lengths."""
    return loud(alphabet="abcdefgh")


def weights(base):
    return {name: tensor.clone() for name, tensor in base.model.state_dict().items()}


def sizes(base, call):
    """Rows of each forward while `call` runs."""
    seen = []
    hook = base.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        call()
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_answers_do_not_depend_on_the_batch(talker, batch):
    alone = [talker.generate([prompt], 24)[0] for prompt in PROMPTS]
    assert len({len(answer) for answer in alone}) >= 5
    assert talker.generate(PROMPTS, 24, batch=batch) == alone


def test_greedy_answers_are_the_likeliest_tokens(talker):
    for prompt, answer in zip(PROMPTS, talker.generate(PROMPTS, 24), strict=True):
        tokens, out = talker.encode(prompt, start=True), []
        while len(out) < 24 and (not out or out[-1] != talker.eos):
            out.append(talker.logits(talker.hidden(torch.tensor([tokens + out]))[0, -1:]).argmax().item())
        assert talker.decode(out) == answer


def test_finished_rows_leave_the_batch(talker, monkeypatch):
    lengths, decode = [], talker.decode
    monkeypatch.setattr(talker, "decode", lambda tokens: lengths.append(len(tokens)) or decode(tokens))
    rows = sizes(talker, lambda: talker.generate(PROMPTS, 24))
    assert len(set(lengths)) > 4
    assert rows == [sum(length >= step for length in lengths) for step in range(min(24, max(lengths) + 1))]


def test_the_head_sees_one_row_a_sequence(talker, monkeypatch):
    rows, head = [], talker.logits
    monkeypatch.setattr(talker, "logits", lambda hidden: rows.append(len(hidden)) or head(hidden))
    talker.generate(["abcdefgh", "abc", "h"], 1)
    assert rows == [3]


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_prefix_is_text_that_stands_before(talker, batch):
    whole = talker.generate(["abcabc" + prompt for prompt in PROMPTS[1:]], 24)
    assert len(set(whole)) > 5
    assert talker.generate(PROMPTS[1:], 24, prefix="abcabc", batch=batch) == whole


def test_an_empty_prompt_after_a_prefix(talker):
    assert talker.generate(["", "a"], 24, prefix="abcab") == talker.generate(["abcab", "abcaba"], 24)


def test_no_prompts_no_answers(tiny):
    assert tiny.generate([], 3) == []
    assert tiny.generate(["a"], 0) == [""]


def test_a_prompt_that_is_too_long_says_both_numbers(tiny):
    with pytest.raises(BadData, match=r"its 6 new tokens need 257 tokens, but the window of tiny-32 is 256.*shorten"):
        tiny.generate(["x" * 200], 6, prefix="y" * 50)
    assert len(tiny.generate(["x" * 200], 6, prefix="y" * 49)) == 1


def test_an_example_that_is_too_long_says_both_numbers(tiny):
    with pytest.raises(BadData, match=r"of 257 tokens is longer than the window of tiny-32 \(256\).*'xxxx"):
        tiny.encode_pair("x" * 200, "y" * 55)
    tokens, answer = tiny.encode_pair("x" * 200, "y" * 54)
    assert (len(tokens), answer, tokens[0], tokens[-1]) == (256, 55, 1, tiny.eos)


def test_tokens_are_characters(tiny):
    assert tiny.decode(tiny.encode("Hi,\nyou~ é", start=True)) == "Hi,\nyou~ \N{REPLACEMENT CHARACTER}"
    assert len(tiny.encode("abc", start=True)) == 4


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, again, other = TinyBase(32), TinyBase(32), TinyBase(32, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.digest == again.digest != other.digest
    assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(again).values(), strict=True))
    assert not torch.equal(one.linears["model.layers.0.mlp.up_proj"].weight, other.linears["model.layers.0.mlp.up_proj"].weight)
    assert all(torch.isfinite(tensor).all() for tensor in weights(one).values())


@pytest.mark.parametrize("name", ["tiny", "tiny-32", "tiny-112", "tiny-48-s3"])
def test_small_bases_by_name(name):
    base = load_base(name)
    assert base.name == {"tiny": "tiny-32"}.get(name, name)
    assert len(base.generate(["abc"], 2)) == 1
    assert load_base(base.name).digest == base.digest


def test_linear_layers_know_where_they_are(tiny):
    assert len(tiny.linears) == 7 * tiny.layers
    assert tiny.layer_of("model.layers.2.mlp.up_proj") == 2
    assert tiny.layer_of("score") == 0
    assert not any("lm_head" in slot for slot in tiny.linears)


def test_weights_are_frozen(tiny):
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny-x", "no base `tiny-x`.*tiny-64-s1"),
        ("./nowhere", r"no folder `\./nowhere`"),
        ("a/b/c", "no folder `a/b/c`"),
        ("no spaces", "no folder `no spaces`"),
    ],
)
def test_a_base_that_is_not_there(name, words):
    with pytest.raises(BadBase, match=words):
        load_base(name)


def test_a_hub_name_that_cannot_be_fetched(monkeypatch):
    asked = []

    def offline(name, **options):
        asked.append((name, sorted(options["allow_patterns"])))
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        BadBase, match=r"`gemma-3-270` is neither a folder nor .*\(ConnectionError\).*Did you mean `gemma-3-270m`"
    ):
        load_base("gemma-3-270")
    with pytest.raises(BadBase, match="`owner/model` is neither"):
        load_base("owner/model")
    assert [name for name, _ in asked] == ["gemma-3-270", "owner/model"]
    assert not any("bin" in pattern or pattern == "*" for pattern in asked[0][1])


def test_options_that_cannot_work():
    with pytest.raises(BadOption, match="dtype is `int8`"):
        load_base("tiny", dtype="int8")
    with pytest.raises(BadOption, match="width is 33"):
        TinyBase(33)


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """A copy of `saved` of one's own, and an empty cache."""
    monkeypatch.setenv("SKILLWEAVE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(saved, tmp_path / "tiny-llama")
    return tmp_path / "tiny-llama"


def same_logits(one, other):
    tokens = torch.tensor([one.encode("What is this?", start=True)])
    assert tokens.tolist() == [other.encode("What is this?", start=True)]
    return torch.allclose(one.logits(one.hidden(tokens)[0]), other.logits(other.hidden(tokens)[0]), rtol=1e-6, atol=1e-6)


def test_a_local_folder_is_a_base(folder, tiny):
    base = load_base(str(folder), dtype="fp32")
    assert same_logits(base, tiny)
    assert set(base.linears) == set(tiny.linears)
    assert base.digest == folder_digest(folder) != tiny.digest
    assert load_base(str(folder), dtype="bf16").dtype == torch.bfloat16


def test_a_folder_may_be_called_tiny(folder, tiny, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert same_logits(load_base("tiny-llama", dtype="fp32"), tiny)


@pytest.mark.parametrize("name", ["owner/model", "tiny-random/llama"])
def test_a_hub_name_is_a_base(folder, tiny, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: str(folder))
    base = load_base(name, dtype="fp32")
    assert base.name == name
    assert same_logits(base, tiny)


def test_pickled_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(BadBase, match=r"tiny-llama|safetensors"):
        load_base(str(folder))
    with pytest.raises(BadBase, match="holds no .safetensors file"):
        folder_digest(folder)


def test_a_tokenizer_without_an_end_is_refused(folder):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "eos_token"}))
    with pytest.raises(BadBase, match="no end-of-sequence token"):
        load_base(str(folder), dtype="fp32")


def test_logits_that_are_more_than_the_head_are_refused(folder):
    """Granite divides its logits: a loss or a gradient taken from the head alone would be wrong without a word."""
    file = folder / "config.json"
    granite = {"model_type": "granite", "architectures": ["GraniteForCausalLM"]}
    for scaling, fits in ((1.0, True), (4.0, False)):
        file.write_text(json.dumps(json.loads(file.read_text()) | granite | {"logits_scaling": scaling}))
        if fits:
            assert load_base(str(folder), dtype="fp32").linears
        else:
            with pytest.raises(BadBase, match="changes its logits in a way that is not known here"):
                load_base(str(folder), dtype="fp32")


def test_a_truncated_model_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadBase, match="cannot read a causal language model from"):
        load_base(str(folder))


def test_the_digest_changes_with_a_byte(folder, monkeypatch):
    before = folder_digest(folder)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    after = folder_digest(folder)
    assert before != after
    monkeypatch.setattr("skillweave.base.sha256_file", lambda path: pytest.fail("read again"))
    assert folder_digest(folder) == after


def test_edits_end_with_their_block(tiny):
    tokens = torch.tensor([tiny.encode("abc")])
    slot, plain = "model.layers.0.mlp.up_proj", tiny.hidden(tokens)
    with edited({slot: lambda x, weight, bias: (x @ weight.T) * 2}):
        assert not torch.equal(tiny.hidden(tokens), plain)
    assert torch.equal(tiny.hidden(tokens), plain)


@pytest.mark.slow
def test_gemma_answers_alone_as_in_a_batch():
    base = load_base(NAME)
    prompts = ["The capital of France is", "One, two, three,", "Dear Sir or Madam, I am writing to"]
    together = base.generate(prompts, 4)
    assert together[1].split()[0].strip(",") == "four"
    assert together == [base.generate([prompt], 4)[0] for prompt in prompts]
    assert base.generate(prompts[:1], 4, prefix="Q: what is it?\nA: ") == base.generate(["Q: what is it?\nA: " + prompts[0]], 4)
