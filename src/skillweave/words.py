"""Whole words as tokens: the tokenizer of small bases on a language whose words are known beforehand."""

import re
from collections.abc import Sequence

from .characters import UNKNOWN


class WordTokenizer:
    """One token a word (what stands between spaces) and one for the end of a line; four more as for characters.

    >>> words = WordTokenizer(["the", "cat", "\\n"])
    >>> words.decode(words.encode("the  cat\\n"))
    'the cat \\n'
    """

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __init__(self, words: Sequence[str]):
        self.words = tuple(words)
        self._number = {word: i + 4 for i, word in enumerate(words)}

    def __len__(self) -> int:
        return len(self.words) + 4

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [self._number.get(word, 3) for word in re.findall(r"\n|\S+", text)]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(self.words[t - 4] if t >= 4 else UNKNOWN for t in map(int, tokens) if t >= 3)
