"""Characters as tokens: the tokenizer of small bases, in a few lines of Python, and as a file that transformers reads."""

from collections.abc import Sequence
from pathlib import Path

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The end of the line and printable ASCII."""
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
SPECIAL = ("<pad>", "<s>", "</s>")


class CharTokenizer:
    """One token a character, and four more: padding, begin, end, and one for what is not in `alphabet`."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __init__(self, alphabet: str = ALPHABET):
        self.alphabet = alphabet
        self._number = {character: i + 4 for i, character in enumerate(alphabet)}

    def __len__(self) -> int:
        return len(self.alphabet) + 4

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [self._number.get(character, 3) for character in text]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(self.alphabet[t - 4] if t >= 4 else "" if t < 3 else UNKNOWN for t in map(int, tokens))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the files of a transformers tokenizer that gives the same tokens, and the same text back.

        With special tokens it begins a text as `Base.encode` does at the start of one.
        """
        from tokenizers import Regex, Tokenizer
        from tokenizers.decoders import Fuse
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Split
        from tokenizers.processors import TemplateProcessing
        from transformers import PreTrainedTokenizerFast

        vocabulary = {token: i for i, token in enumerate((*SPECIAL, UNKNOWN))} | self._number
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = Fuse()
        begin = SPECIAL[self.bos_token_id]
        tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, self.bos_token_id)])
        names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
        options = {"split_special_tokens": True, "clean_up_tokenization_spaces": False}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options).save_pretrained(folder)
