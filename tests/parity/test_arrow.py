"""Arrow against PEFT's: the same directions, the same logits."""

import pytest
import torch

from skillweave.base import TinyBase
from skillweave.compose.arrow import Arrow
from skillweave.delta import Factors, LowRank
from skillweave.peft_format import save_adapter
from skillweave.task import Example

peft = pytest.importorskip("peft")
arrow = pytest.importorskip("peft.tuners.lora.arrow")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # PEFT's own
TOKENS = torch.tensor([[1, 20, 30, 40, 50, 60], [1, 9, 8, 7, 6, 5]])


def peaked(skill):
    """The same skill with a first direction far above the others: PEFT's power iteration of 15 steps then is exact."""
    return LowRank({s: Factors(torch.cat([f.a[:1] * 20, f.a[1:]]), f.b, f.scale) for s, f in skill.factors.items()})


@pytest.mark.parametrize(("top_k", "temperature"), [(1, 1.0), (2, 0.3), (3, 1.0), (4, 2.0)])
def test_arrow_gives_the_logits_of_peft(tiny, random_skill, tmp_path, top_k, temperature):
    skills = {f"s{k}": peaked(random_skill(tiny, k, scale=0.25 * (k + 1))) for k in range(4)}
    for name, skill in skills.items():
        save_adapter(tmp_path / name, skill, tiny.name)
    config = peft.tuners.lora.config.ArrowConfig(top_k=top_k, router_temperature=temperature, rng_seed=0)
    model = arrow.create_arrow_model(TinyBase(32).model, [str(tmp_path / name) for name in skills], config).eval()
    with torch.no_grad():
        theirs = model(input_ids=TOKENS).logits
    woven, _ = Arrow(top_k=top_k, temperature=temperature).fit(tiny, skills, [Example("a", "b")], 0)
    with woven.use(tiny, skills).on(["", ""]):
        ours = tiny.logits(tiny.hidden(TOKENS).flatten(0, 1)).view(theirs.shape)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    layer = model.base_model.model.model.layers[1].mlp.up_proj.lora_arrow["arrow_router"]
    rows = woven.router.rows["model.layers.1.mlp.up_proj"]
    assert torch.allclose((layer.prototypes * rows).sum(1).abs(), torch.ones(4), atol=1e-5)
    assert not torch.allclose(ours, tiny.logits(tiny.hidden(TOKENS).flatten(0, 1)).view(theirs.shape), atol=1e-2)
