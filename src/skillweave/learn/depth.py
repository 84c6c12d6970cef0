"""A base with more layers: copies that change nothing until they learn (LLaMA-Pro, 2401.02415; paper 49, 2510.10071).

A layer of a transformer adds two branches to what it is given, and each branch ends in a matrix:

    h <- h + O attention(h)        h <- h + D neurons(h)

A copy of a layer stands right behind it, with its O and its D set to zero: both branches add nothing, so the deeper base
computes what the base does. The layers of the base are shared in memory and stay as they are.

In Gemma 2 and 3 a norm follows each matrix. There it is the gain of the norm that is set to zero, and the matrix is copied:
a norm divides by the size of what it is given, so one step away from O = 0 the branch would be as loud as it ever gets.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from ..base import Base
from ..composition import Active, read_about, write_about
from ..delta import LowRank
from ..delta_format import DELTA
from ..errors import BadBase, BadOption, BadSkill, BaseMismatch
from ..files import sha256_file, sha256_json
from ..peft_format import read_tensors
from ..slots import stack_of
from ..task import Example

ENDS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2
    ("o_proj", "down_proj"),  # Llama and its kin, where a norm of the first name begins a branch
    ("c_proj", "c_proj"),  # GPT-2
)
"""What the modules that end the two branches of a layer are called; the first pair that is there."""


def expand(base: Base, layers: Sequence[int]) -> Base:
    """A deeper Base that computes what `base` does: a copy of each of `layers` (numbers from 0) stands right behind it.

    All weights but those of the copies are shared with `base` in memory. Raises BadOption, BadBase.
    """
    check_layers(base, layers)
    model: Any = copy.deepcopy(base.model, {id(weight): weight for weight in base.model.parameters()})
    own = stack_of(model, base.name)
    for number in sorted(layers, reverse=True):
        own.insert(number + 1, _silent(own[number], base.name))
    for number, layer in enumerate(own):
        _number(layer, number)
    _deepen(model.config.get_text_config(), sorted(layers))
    deeper = Base(base.name, sha256_json(["expanded", base.digest, sorted(layers)]), model, base.tokenizer)
    _check_same(base, deeper)
    return deeper


def check_layers(base: Base, layers: Sequence[int]) -> None:
    """BadOption unless `layers` are different layers of `base`, at least one."""
    if not layers or len(set(layers)) < len(layers) or not all(0 <= layer < base.layers for layer in layers):
        shown = ", ".join(map(str, layers)) or "none"
        raise BadOption(
            f"the layers to copy are {shown}, but have to be different ones of 0 to {base.layers - 1}.", "name each once"
        )


def places(layers: Sequence[int]) -> list[int]:
    """Where the copies of `layers` stand in the deeper base."""
    return [layer + before + 1 for before, layer in enumerate(sorted(layers))]


def new_weights(deeper: Base, layers: Sequence[int]) -> dict[str, nn.Parameter]:
    """The weights of the copies, by their names in the deeper model."""
    own = {id(weight) for place in places(layers) for weight in deeper.stack[place].parameters()}
    return {name: weight for name, weight in deeper.model.named_parameters() if id(weight) in own}


def _number(layer: nn.Module, number: int) -> None:
    """Tell a layer and its parts where they stand: a memory of keys and values is kept by that."""
    parts: Any = [part for part in layer.modules() if hasattr(part, "layer_idx")]
    for part in parts:
        part.layer_idx = number


def _silent(layer: nn.Module, name: str) -> nn.Module:
    """A copy of `layer`, with weights of its own, that passes on what it is given."""
    configs = {id(part.config): part.config for part in layer.modules() if hasattr(part, "config")}
    twin = copy.deepcopy(layer, configs)
    for end in ends_of(twin, name).values():
        end.weight.data.fill_(nothing(end))
        if getattr(end, "bias", None) is not None:
            end.bias.data.zero_()
    return twin


def ends_of(layer: nn.Module, name: str) -> dict[str, Any]:
    """The two modules that end the branches of a layer of `name`, by their names in it. Raises BadBase."""
    for pair in ENDS:
        found = {slot: part for slot, part in layer.named_modules() if slot.rpartition(".")[2] in pair}
        if len(found) == 2:
            return found
    shown = ", or ".join(" and ".join(dict.fromkeys(pair)) for pair in ENDS)
    raise BadBase(f"a layer of `{name}` does not end its two branches in {shown}.", "choose a model such as Gemma or Llama")


def nothing(module: nn.Module) -> float:
    """The weight at which a module says nothing: 0, or -1 for a norm that multiplies by 1 + weight, as Gemma's."""
    if isinstance(module, nn.Linear) or module.get_parameter("weight").dim() > 1:
        return 0.0
    bare = copy.deepcopy(module)
    for weight in bare.parameters():
        weight.data.zero_()
    return -1.0 if bare(torch.ones(1, module.get_parameter("weight").shape[0])).any() else 0.0


def _deepen(config: Any, layers: Sequence[int]) -> None:
    """Say in the model's configuration what stands where now."""
    config.num_hidden_layers += len(layers)
    if (types := getattr(config, "layer_types", None)) is not None:
        config.layer_types = [kind for number, kind in enumerate(types) for _ in range(1 + (number in layers))]


@torch.inference_mode()
def _check_same(base: Base, deeper: Base) -> None:
    """Some models keep more by layer than is known here: the deeper one must say the same, also with a memory."""
    tokens = torch.tensor([[base.eos, base.pad, 0, base.eos]])
    _, memory = deeper.read(tokens[:, :2])
    for theirs in (deeper.hidden(tokens), deeper.read(tokens[:, 2:], memory=memory)[0]):
        ours = base.hidden(tokens)[:, -theirs.shape[1] :]
        if not torch.allclose(ours.float(), theirs.float(), rtol=0.05, atol=0.05 * ours.abs().max().item()):
            raise BadBase(f"a copied layer changes what `{base.name}` computes.", "choose a model such as Gemma or Llama")


@dataclass(frozen=True)
class Deeper:
    """A skill that is layers of its own: copies of `layers` of a base, and what they have learned."""

    layers: tuple[int, ...]
    """The layers of the base behind which they stand."""
    weights: Mapping[str, Tensor]
    """By their names in the deeper model."""
    importance: tuple[float, ...] = ()
    """Of every layer of the base for the probe, in nats per token."""
    read: tuple[Example, ...] = ()
    """Examples that decided something and were not learned: nothing is measured on them, either."""

    @property
    def skills(self) -> tuple[str, ...]:
        return ()

    @property
    def strengths(self) -> Float[Tensor, "skill layer"]:
        return torch.zeros(0, len(self.importance) or 1)

    def use(self, base: Base, skills: Mapping[str, LowRank]) -> Active:
        """The deeper base, whose other weights are those of `base` in memory."""
        deeper = expand(base, self.layers)
        for name, weight in new_weights(deeper, self.layers).items():
            weight.data.copy_(self.weights[name])
        return Active(deeper)

    def save(self, folder: Path, base: Base, skills: Mapping[str, LowRank]) -> None:
        """delta.safetensors with the new layers, composition.json with where they belong."""
        save_file({name: weight.contiguous() for name, weight in self.weights.items()}, folder / DELTA, {"format": "pt"})
        write_about(
            folder,
            "expand",
            base={"name": base.name, "digest": base.digest},
            layers=list(self.layers),
            importance=list(self.importance),
            delta=sha256_file(folder / DELTA),
        )

    @staticmethod
    def load(folder: Path, base: Base, name: str) -> Active:
        """The deeper base of the skill `name`. Raises BaseMismatch, BadSkill."""
        about = read_about(folder, name)
        origin, layers = about.get("base"), about.get("layers")
        if not isinstance(origin, dict) or not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
            raise BadSkill(f"composition.json of `{name}` does not say which layers of which base it copies.", AGAIN)
        if origin.get("digest") != base.digest:
            raise BaseMismatch(
                f"the layers of `{name}` were made for {origin.get('name')} ({str(origin.get('digest'))[:12]}), "
                f"and this is {base.name} ({base.digest[:12]}).",
                "use the base that the skill was learned on",
            )
        return Deeper(tuple(layers), _read(folder / DELTA, name, base, layers, about.get("delta"))).use(base, {})


AGAIN = "fetch or learn it again"


def _read(path: Path, name: str, base: Base, layers: Sequence[int], digest: str | None) -> dict[str, Tensor]:
    """The new layers of a skill, checked against what the deeper base has. Raises BadSkill."""
    weights = read_tensors(path, name, "file of layers")
    if sha256_file(path) != digest:
        raise BadSkill(f"{path.name} of `{name}` is not the file that composition.json speaks of.", AGAIN)
    try:
        check_layers(base, layers)
    except BadOption as error:
        raise BadSkill(f"in `{name}`, {error.message}", AGAIN) from error
    wanted = {key: weight.shape for key, weight in new_weights(expand(base, layers), layers).items()}
    if {key: weight.shape for key, weight in weights.items()} != wanted:
        raise BadSkill(f"{path.name} of `{name}` does not hold the weights of the copied layers.", AGAIN)
    return weights
