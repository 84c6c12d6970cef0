"""A base from scratch becomes a folder, and is the same base when it is read again."""

import pytest
import torch

from skillweave.base import Base, TinyBase, load_base, save_base
from skillweave.characters import ALPHABET, UNKNOWN, CharTokenizer
from skillweave.errors import BadBase, BadOption
from skillweave.learn.pretrain import pretrain, weights_digest
from skillweave.task import Example

TEXTS = [ALPHABET, "", "  two  spaces , 'nt\n\n", "what?", "é\t?", "<s></s><pad>", "date: 3 May\n"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLWEAVE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("alphabet", [ALPHABET, "0123456789+= \n", "ab"])
def test_a_trained_base_is_the_same_when_it_is_read_again(tmp_path, alphabet):
    four = [Example(a, b) for a, b in zip("abab", "baab", strict=True)]
    base, _ = pretrain(TinyBase(32, alphabet=alphabet), four, steps=3, batch=2, seed=0)
    save_base(base, tmp_path / "made")
    again = load_base(str(tmp_path / "made"), "fp32")
    assert weights_digest(again) == base.digest
    assert len(TEXTS) == 7
    for text in TEXTS:
        tokens = base.encode(text, start=True)
        assert again.encode(text, start=True) == tokens and again.decode(tokens) == base.decode(tokens)
        one, other = (b.logits(b.hidden(torch.tensor([tokens]))[0]) for b in (base, again))
        assert torch.allclose(one, other, atol=1e-5)  # the last bit depends on where in memory a weight lies
    assert again.encode_pair("a\n", "b") == base.encode_pair("a\n", "b")
    assert again.generate(["a", "bb"], 8) == base.generate(["a", "bb"], 8)
    assert (again.eos, again.pad, again.window, again.tied) == (base.eos, base.pad, base.window, base.tied)


def test_characters_there_and_back():
    tokenizer = CharTokenizer()
    assert tokenizer.decode(tokenizer.encode(ALPHABET)) == ALPHABET and len(tokenizer) == len(ALPHABET) + 4 == 100
    assert tokenizer.decode([1, *tokenizer.encode("é?"), 2, 0]) == UNKNOWN + "?"


def test_what_stands_there_is_never_written_over(tiny, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadOption, match="taken is already there"):
        save_base(tiny, tmp_path / "taken")
    assert list((tmp_path / "taken").iterdir()) == []


def test_a_folder_is_written_whole_or_not_at_all(tiny, tmp_path, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny.tokenizer, "save_pretrained", full)
    with pytest.raises(BadOption, match="no space left for .*half"):
        save_base(tiny, tmp_path / "out" / "half")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_below_a_file_is_a_sentence(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOption, match="cannot write .*file/below: "):
        save_base(tiny, tmp_path / "file" / "below")


def test_a_base_whose_tokenizer_has_no_file_is_refused(tiny, tmp_path):
    class Words:
        eos_token_id = pad_token_id = 0

    with pytest.raises(BadBase, match="the tokenizer of `words` cannot be written"):
        save_base(Base("words", "0", tiny.model, Words()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
