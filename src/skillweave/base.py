"""Base: the one seam to models. Tokens in, hidden states and logits out.

Everything else in the house asks a Base and never a model: its hidden states, the logits of chosen rows, its linear layers
(where skills attach), generation. Any Hugging Face causal language model is one, by name or path; `TinyBase` is one of a few
thousand to a few million parameters made from scratch, for experiments in minutes and tests in seconds.
"""

import json
import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import gemma
from .characters import ALPHABET, CharTokenizer
from .decoding import NOTHING, decode
from .errors import BadBase, BadData, BadOption, LibraryError
from .files import atomic_write, new_folder, sha256_file, sha256_json
from .slots import (
    Edit,
    SkillConv1D,
    SkillLinear,
    attach,
    by_sample,
    edit_of,
    edited,
    listen,
    name_in,
    samples_at_hand,
    stack_of,
)
from .words import WordTokenizer

__all__ = [
    "Base",
    "CharTokenizer",
    "Edit",
    "SkillLinear",
    "TinyBase",
    "bf16_is_fast",
    "edited",
    "folder_digest",
    "load_base",
    "samples_at_hand",
    "save_base",
]


class Base:
    """A frozen causal language model with its tokenizer.

    `digest` names the weights: a skill learned on one Base is refused on another.
    """

    def __init__(self, name: str, digest: str, model: nn.Module, tokenizer):
        self.name, self.digest, self.model, self.tokenizer = name, digest, model.eval().requires_grad_(False), tokenizer
        self.dtype: torch.dtype = model.dtype
        config = model.config.get_text_config()
        self.window: int = getattr(config, "max_position_embeddings", None) or 2048
        self.layers: int = config.num_hidden_layers
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos
        self._body = model.base_model
        self.head_layer: nn.Module = model.get_output_embeddings()
        self.table_layer: nn.Module = model.get_input_embeddings()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.linears: dict[str, SkillLinear | SkillConv1D] = attach(model, self.head_layer)
        self.head_slot, self.table_slot = name_in(model, self.head_layer), name_in(model, self.table_layer)
        listen(self.table_layer, self.table_slot)

    @property
    def stack(self) -> nn.ModuleList:
        """Its transformer layers, in their order. Raises BadBase."""
        return stack_of(self.model, self.name)

    def layer_of(self, slot: str) -> int:
        """The number of the transformer layer that holds the linear layer `slot` (0 for one outside the layers)."""
        found = re.search(r"\.(\d+)\.", slot)
        return int(found.group(1)) if found else 0

    def hidden(
        self, tokens: Int[Tensor, "batch time"], mask: Tensor | None = None, **options
    ) -> Float[Tensor, "batch time width"]:
        """Last hidden states, ready for the head. Padding on the right needs no mask: causal rows never look at it."""
        return self._body(input_ids=tokens, attention_mask=mask, use_cache=False, **options).last_hidden_state

    def read(
        self, tokens: Int[Tensor, "batch time"], mask: Tensor | None = None, position: Tensor | None = None, memory=None
    ) -> tuple[Float[Tensor, "batch time width"], Any]:
        """Last hidden states, and the key-value memory to go on from; `memory` is that of what was read before.

        `mask` covers what is in the memory, too. Padding on the left needs it, and positions that count real tokens only.
        """
        out = self._body(input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=memory, use_cache=True)
        return out.last_hidden_state, out.past_key_values

    @property
    def head(self) -> Float[Tensor, "vocabulary width"]:
        """The weights that turn a row of hidden states into logits."""
        return self.head_layer.weight

    @property
    def table(self) -> Float[Tensor, "vocabulary width"]:
        """The embeddings of the tokens, as they are stored (some models scale them afterwards)."""
        return self.table_layer.weight

    @property
    def tied(self) -> bool:
        """Whether the head is the table of embeddings."""
        return self.head is self.table

    def logits(self, rows: Float[Tensor, "row width"], tokens: slice | Tensor = slice(None)) -> Float[Tensor, "row token"]:
        """Scores of the next token for chosen rows of hidden states: never for rows, or `tokens`, that nobody asks about."""
        bias = self.head_layer.bias
        edit = edit_of(self.head_slot)
        if edit is None:
            logits = F.linear(rows, self.head[tokens], bias if bias is None else bias[tokens])
        else:
            logits = edit(rows, self.head, bias, tokens)
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def encode(self, text: str, start: bool = False) -> list[int]:
        """Token numbers of `text`; with `start`, after the begin-of-sequence token if the model has one."""
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        first = self.tokenizer.bos_token_id
        return [first, *tokens] if start and first is not None else tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def encode_pair(self, prompt: str, completion: str) -> tuple[list[int], int]:
        """Tokens of prompt + completion + end, and how many of them are the completion's (with the end)."""
        before, after = self.encode(prompt, start=True), [*self.encode(completion), self.eos]
        if len(before) + len(after) > self.window:
            raise BadData(
                f"an example of {len(before) + len(after):,} tokens is longer than the window of {self.name} "
                f"({self.window:,}): {prompt[:40]!r}…",
                "shorten or split it, or choose a base with a longer window",
            )
        return before + after, len(after)

    def encode_prompts(self, prompts: Sequence[str], room: int, prefix: str = "") -> tuple[list[list[int]], list[int]]:
        """Token numbers of each prompt, and those of `prefix`, which stand before all; BadData if `room` new ones do not fit.

        No prompt is empty: it has at least a token to go on from.
        """
        *shared, last = self.encode(prefix, start=True) if prefix else [None]
        start = [] if last is None else [last]
        if by_sample():
            shared, start = [], shared + start
        tokens = [start + self.encode(prompt, start=not start) or [self.eos] for prompt in prompts]
        longest = max(map(len, tokens), default=0) + len(shared) + room
        if longest > self.window:
            raise BadData(
                f"a prompt and its {room} new tokens need {longest:,} tokens, "
                f"but the window of {self.name} is {self.window:,}.",
                "shorten the prompt or lower the number of new tokens",
            )
        return tokens, shared

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], max_new_tokens: int = 64, prefix: str = "", batch: int = 64) -> list[str]:
        """Greedy completions, one a prompt, ended by the end token or after `max_new_tokens`.

        Prompts are grouped by length, finished rows leave the batch, the head sees one row a sequence. `prefix` (few-shot
        examples, say) is read once and shared by all prompts, unless each is computed in its own way.
        """
        tokens, shared = self.encode_prompts(prompts, max_new_tokens, prefix)
        order = sorted(range(len(tokens)), key=lambda i: (len(tokens[i]), i))
        answers: list[str] = [""] * len(tokens)
        memory = self.read(torch.tensor([shared]))[1] if shared else None
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            said = decode(
                self, [tokens[i] for i in rows], [1] * len(rows), max_new_tokens, _likeliest, rows, memory, len(shared)
            )
            for i, out in zip(rows, said.tolist(), strict=True):
                answers[i] = self.decode([token for token in out if token not in (self.eos, NOTHING)])
        return answers


def _likeliest(rows: Tensor, logits: Tensor, step: int) -> Tensor:
    return logits.argmax(-1)


def bf16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def load_base(name: str = gemma.NAME, dtype: str = "auto") -> Base:
    """A Base by name: the Gemma 3 270M of PyPI (`gemma-3-270m`), a folder, or the name of a model on a hub.

    dtype: `bf16`, `fp32`, or `auto`: bf16 where the processor has it. Raises BadBase.
    """
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if dtype not in (*dtypes, "auto"):
        raise BadOption(f"dtype is `{dtype}`, but can only be auto, bf16 or fp32.")
    kind = dtypes.get(dtype) or (torch.bfloat16 if bf16_is_fast() else torch.float32)
    if name.startswith("tiny") and "/" not in name and not Path(name).is_dir():
        return TinyBase.named(name)
    folder = gemma.folder() if name == gemma.NAME else _find(name)
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=kind, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # many kinds, from many libraries: all mean that this folder is not a model we can read
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadBase(
            f"cannot read a causal language model from `{name}`: {reason[:200]}", "check the folder or name"
        ) from error
    if missing := sorted(loaded["missing_keys"]):
        raise BadBase(f"`{name}` lacks the weights of {len(missing)} layers, among them {missing[0]}.", "fetch the model again")
    if tokenizer.eos_token_id is None:
        raise BadBase(f"the tokenizer of `{name}` has no end-of-sequence token.", "set eos_token in its tokenizer_config.json")
    base = Base(name, folder_digest(folder), model, tokenizer)
    if not base.linears:
        raise BadBase(f"`{name}` has no linear layer that a skill could attach to.", "choose a model with linear layers")
    _check_logits(base)
    return base


def save_base(base: Base, folder: Path) -> None:
    """Write `base` as a Hugging Face model folder, which `load_base` reads again; BadOption if it cannot be written.

    A small base from scratch is written with its tokenizer of characters; read again, it is a base like any other.

    The digest of a folder is that of its files: learn skills on the folder, not on the Base in memory, if it is to be kept.
    """
    if not hasattr(base.tokenizer, "save_pretrained"):
        raise BadBase(f"the tokenizer of `{base.name}` cannot be written to a folder.", "choose a base that came from one")
    from transformers import logging

    logging.disable_progress_bar()
    model: Any = base.model
    try:
        with new_folder(folder) as aside:
            model.save_pretrained(aside)
            base.tokenizer.save_pretrained(aside)
    except (LibraryError, OSError) as error:
        reason = error.message if isinstance(error, LibraryError) else f"cannot write {folder}: {error.strerror or error}."
        raise BadOption(reason, "choose another folder") from error


@torch.inference_mode()
def _check_logits(base: Base) -> None:
    """Some models do more to their logits than their head and a soft cap: to be wrong about that would show in no message."""
    tokens = torch.tensor([[base.eos, base.pad, 0]])
    theirs = base.model(input_ids=tokens, use_cache=False).logits[0].float()
    if not torch.allclose(
        base.logits(base.hidden(tokens)[0]).float(), theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item()
    ):
        raise BadBase(f"`{base.name}` changes its logits in a way that is not known here.", "choose another base")


def _find(name: str) -> Path:
    """The folder of a local model, or of a hub model in the local cache (fetched when it is not there yet)."""
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise BadBase(f"no folder `{name}`.", f"give a model folder, a hub name such as owner/model, or {gemma.NAME}")
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.safetensors", "*.json", "*.model", "*.txt"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:
        near = get_close_matches(name, [gemma.NAME, "tiny"], n=1)
        guess = f" Did you mean `{near[0]}`?" if near else ""
        raise BadBase(
            f"`{name}` is neither a folder nor a model that could be fetched from the hub ({type(error).__name__}).{guess}",
            f"check the spelling and the connection; {gemma.NAME} needs no hub",
        ) from error


def folder_digest(folder: Path) -> str:
    """Digest of a model folder's weights; remembered by size and time of change, since weights are large."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadBase(f"{folder} holds no .safetensors file.", "only safetensors weights are read (pickles can run code)")
    stamp = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    memo = gemma.cache_root() / "digests" / f"{sha256_json(stamp)[:32]}.json"
    if memo.is_file():
        return json.loads(memo.read_text())["digest"]
    if (folder / "seal.json").is_file():
        gemma.check(folder)  # of our own conversion we know what it should be
    digest = sha256_json([[f.name, sha256_file(f)] for f in files])
    memo.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(memo, json.dumps({"digest": digest}))
    return digest


class TinyBase(Base):
    """A Llama-shaped decoder from scratch, its tokens characters or whole words; weights drawn from `seed` (untrained).

    One dial: `width`. Depth, heads and feed-forward follow from it: 32 is 0.05 M parameters, 128 about 1 M, 384 about 10 M.
    `layers` sets the depth by hand, `mlp` the neurons of each layer's feed-forward part. An `alphabet` that is no string is
    a list of words.
    """

    def __init__(
        self,
        width: int = 32,
        seed: int = 0,
        alphabet: str | Sequence[str] = ALPHABET,
        window: int = 256,
        layers: int | None = None,
        mlp: int | None = None,
    ):
        from transformers import LlamaConfig, LlamaForCausalLM

        if width % 16 or width < 16:
            raise BadOption(f"width is {width}, but has to be a multiple of 16, at least 16.")
        if layers is not None and layers < 1:
            raise BadOption(f"layers is {layers}, but has to be at least 1.")
        if mlp is not None and mlp < 1:
            raise BadOption(f"mlp is {mlp}, but has to be at least 1.")
        tokenizer = CharTokenizer(alphabet) if isinstance(alphabet, str) else WordTokenizer(alphabet)
        heads = width // (16 if width % 32 else 32)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=mlp or width * 8 // 3 // 16 * 16,
            num_hidden_layers=layers or max(2, round(math.log2(width)) - 2),
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=window,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        model = model.to_empty(device="cpu")
        _draw(model, seed)
        by_hand = [*([layers] if layers else []), *([f"mlp {mlp}"] if mlp else [])]
        digest = sha256_json(["tiny", width, seed, alphabet, window, *by_hand])
        depth, draw = f"-l{layers}" if layers else "", f"-s{seed}" if seed else ""
        super().__init__(f"tiny-{width}{depth}{f'-m{mlp}' if mlp else ''}{draw}", digest, model, tokenizer)

    @classmethod
    def named(cls, name: str) -> "TinyBase":
        """`tiny`, `tiny-64`, `tiny-64-s1` (width, seed), `tiny-64-l2` (layers), `tiny-64-m320` (feed-forward neurons)."""
        found = re.fullmatch(r"tiny(?:-(\d+))?(?:-l(\d+))?(?:-m(\d+))?(?:-s(\d+))?", name)
        if not found:
            raise BadBase(f"no base `{name}`.", "a small base is called tiny, tiny-64 or tiny-64-s1 (width, seed)")
        width, layers, mlp, seed = (None if number is None else int(number) for number in found.groups())
        return cls(width or 32, seed or 0, layers=layers, mlp=mlp)


def _draw(model: nn.Module, seed: int) -> None:
    """Fill all weights from a generator of our own; the caller's randomness is left alone."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if weight.dim() < 2:
            weight.data.fill_(1.0)  # norms
        else:
            weight.data.normal_(0.0, 0.4 / math.sqrt(weight.shape[-1]) if "embed" not in name else 0.02, generator=generator)
    rotary = model.model.rotary_emb
    rotary.__init__(model.config)
    model.tie_weights()
