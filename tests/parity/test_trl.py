"""The losses of GRPO against TRL's own, where it is installed; benchmarks/grpo_vs_trl.py checks and reports the same."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

pytestmark = pytest.mark.filterwarnings("ignore")  # those of TRL and of what it uses
FILE = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "grpo_parity.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("grpo_parity", FILE)
    module = sys.modules["grpo_parity"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cases(tmp_path_factory.mktemp("parity"))


def test_every_loss_is_there_with_and_without_kl(found):
    assert {(case["loss_type"], case["kl"]) for case in found} == {
        (kind, kl) for kind in ("grpo", "dr_grpo", "dapo", "gspo") for kl in (0.0, 0.1)
    }
    assert len({round(case["trl"], 6) for case in found}) == len(found) == 8


def test_the_batch_can_tell_losses_apart(found):
    assert all(case["tokens"] > 50 and 0.1 < case["tokens_cut"] < 0.9 and not case["level_groups"] for case in found)


def test_advantages_losses_and_gradients_are_trls(found):
    for case in found:
        assert case["advantages"] < 1e-5 and case["loss"] < 1e-3 and case["gradient"] < 1e-5, case
