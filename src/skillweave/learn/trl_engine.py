"""TRL as the engine of `sft` and `grpo`: a process a GPU, or one on the processor where there is no GPU.

What is learned from, and how, stays ours: tokens, batches and prompts in our order, our start of the adapter, AdamW with our
course of the rate, the task's own score as the reward. TRL samples, computes, and averages over the processes. A run has a
folder: the base, the adapter to start from and the job go in, PEFT's adapter comes out. Its processes are of their own, since
TRL seeds every generator that there is; over a socket in the folder they ask this one what completions earn, so that any task
will do, and tell how far they are. Nothing is kept of a run that is stopped.
"""

import json
import os
import pickle
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..base import Base, save_base
from ..delta import LowRank
from ..errors import BadOption, MissingExtra, SkillweaveError
from ..peft_format import load_adapter, save_adapter
from ..progress import say
from ..task import Example, Task
from .batches import Batches
from .journal import Journal, Row
from .loop import BETAS, Log, Plan, Run, rate
from .rollout import Judge, Prompts, limit_of
from .sampling import Sample

if TYPE_CHECKING:
    from .grpo import GRPO
    from .sft import SFT

ENGINES = ("own", "trl")
Score = Callable[[Sequence[int], Sequence[str]], Sequence[float]]
"""(which of the prompts, completions) -> what each completion earns, unitless."""


@dataclass(frozen=True)
class Job:
    """What every process has to know."""

    method: Any
    """An SFT, or a GRPO if prompts are asked."""
    seed: int
    end: int
    """The token that ends an answer."""
    pairs: tuple[tuple[list[int], int], ...] = ()
    """SFT: (tokens, number of answer tokens), in order, batch after batch."""
    asked: tuple[Example, ...] = ()
    """GRPO: whose prompts are asked, in order."""
    limit: int = 0
    """GRPO: the most tokens of a completion."""

    @property
    def rows(self) -> int:
        """Texts in a step."""
        return self.method.batch * (self.method.group if self.asked else 1)


def wanted(engine: str) -> bool:
    """Whether TRL is what was asked for. Raises BadOption, MissingExtra."""
    if engine not in ENGINES:
        raise BadOption(f"engine is `{engine}`, but can only be {' or '.join(ENGINES)}.")
    if engine == "trl" and any(find_spec(package) is None for package in ("trl", "peft")):
        raise MissingExtra("the engine trl", "skillweave[trl]")
    return engine == "trl"


def sft(method: "SFT", base: Base, examples: Sequence[Example], seed: int, run: Run) -> tuple[LowRank, Log]:
    """Learn `examples` in the batches of `SFT.fit`; returns the skill's weights (fp32) and what happened."""
    if method.precondition:
        raise BadOption("the engine trl does not precondition.", "leave out precondition or the engine")
    batches = Batches(base, examples, method.batch, seed)
    pairs = [batches.pairs[i] for step in range(method.steps) for i in batches.at(step).samples]
    start = LowRank.fresh(base, method.rank, method.scale, seed)
    return train(Job(method, seed, base.eos, pairs=tuple(pairs)), base, start, run)


def grpo(
    method: "GRPO", base: Base, examples: Sequence[Example], seed: int, run: Run, task: Task, start: LowRank
) -> tuple[LowRank, Log]:
    """Practise the prompts of `examples` from the weights of `start`; returns the new ones (fp32) and what happened."""
    say("the engine trl does not probe, and asks no other prompts in the place of groups that all earned the same")
    job = practice(method, base, examples, seed)
    skill, log = train(job, base, start, run, scorer(job, task))
    if all(row.get("frac_reward_zero_std", 1.0) == 1.0 for row in log.rows):
        raise SkillweaveError(
            f"within every group of {task.name} all completions earned the same: there was nothing to learn.",
            "teach it by examples first (--method sft, then --from that skill), or ask larger groups",
        )
    return skill, log


def practice(method: "GRPO", base: Base, examples: Sequence[Example], seed: int) -> Job:
    """The job of a GRPO run: prompts in the order of `GRPO.fit` without refills."""
    prompts, count = Prompts(examples, seed), -(-method.steps // method.updates) * method.batch
    asked = tuple(prompts.at(place) for place in range(count))
    return Job(method, seed, base.eos, asked=asked, limit=limit_of(base, examples, method.tokens))


def scorer(job: Job, task: Task) -> Score:
    """What completions of a GRPO job earn by the score of `task`."""
    judge = Judge(task)
    return lambda places, texts: [
        judge(job.asked[place], [Sample((), (), said, True)])[0] for place, said in zip(places, texts, strict=True)
    ]


def train(job: Job, base: Base, start: LowRank, run: Run, score: Score | None = None) -> tuple[LowRank, Log]:
    """Do `job` from the weights of `start`, in processes of its own."""
    count, began, cpu = processes(), time.monotonic(), _cpu()
    if job.rows % count:
        raise BadOption(f"{job.rows} texts a step cannot be shared by {count} GPUs.", "choose another --batch, or fewer GPUs")
    log, journal = Log(), Journal(run.journal)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, job, base, start)
        for row in _launch(folder, count, score):
            journal.add(row)
            log.loss.append(row["loss"])
            run.tick(1, f"reward {row['reward']:.3f}" if "reward" in row else f"loss {row['loss']:.3f}")
        skill = load_adapter(folder / "skill")
    log.rows, log.tokens = journal.rows, int(journal.series("num_tokens")[-1])
    log.samples = len(job.asked) * job.method.group if job.asked else 0
    log.drawn = round(sum(journal.series("completions/mean_length")) * job.rows)
    log.seconds, log.cpu_seconds = time.monotonic() - began, _cpu() - cpu
    return skill, log


def processes() -> int:
    """How many take part: one a GPU (CUDA_VISIBLE_DEVICES says which), or one."""
    return max(1, torch.cuda.device_count())


def prepare(folder: Path, job: Job, base: Base, start: LowRank) -> None:
    """Write what a process reads."""
    save_base(base, folder / "base")
    save_adapter(folder / "start", start, base.name)
    (folder / "job").write_bytes(pickle.dumps(job))


def _launch(folder: Path, count: int, score: Score | None) -> Iterator[Row]:
    """Run `count` processes on `folder`; the rows of their log as they come. SkillweaveError with what one that fails says."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    command = [sys.executable, *several, "-m", __name__, str(folder)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with socket.socket(socket.AF_UNIX) as server, open(folder / "said", "w+") as said:
        server.bind(str(folder / "line"))
        server.listen()
        with subprocess.Popen(command, env=environment, stdout=said, stderr=said) as child:
            try:
                yield from _listen(child, server, score)
            finally:
                child.terminate()
        if child.returncode:
            said.seek(0)
            words = [line.strip() for line in said if "Error" in line] or ["no message"]
            raise SkillweaveError(f"TRL ended with code {child.returncode}: {words[0][:300]}")


def _listen(child: subprocess.Popen, server: socket.socket, score: Score | None) -> Iterator[Row]:
    """Answer what the processes ask, a JSON value a line, until they are done; the rows that they tell."""
    lines: dict[socket.socket, Any] = {}
    with ExitStack() as opened:
        while child.poll() is None:
            for ready in select.select([server, *lines], [], [], 0.1)[0]:
                if ready is server:
                    caller = opened.enter_context(server.accept()[0])
                    lines[caller] = opened.enter_context(caller.makefile("rw", encoding="utf-8"))
                elif words := lines[ready].readline():
                    asked = json.loads(words)
                    if "row" in asked:
                        yield asked["row"]
                    answer = score(asked["places"], asked["texts"]) if score and "places" in asked else None
                    lines[ready].write(json.dumps(answer) + "\n")
                    lines[ready].flush()
                else:  # that process is done
                    del lines[ready]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# What one process does.


def trainer(folder: Path, job: Job, score: Score | None = None, **changed: Any):
    """The trainer of TRL for `job`, with the base and adapter of `folder`; `changed` are fields of its configuration."""
    from transformers import AutoTokenizer, PrinterCallback

    model, optimizers = _learner(folder, job)
    made = {"model": model, "optimizers": optimizers, "processing_class": AutoTokenizer.from_pretrained(folder / "base")}
    shared = {
        "output_dir": str(folder / "trl"),
        "max_steps": job.method.steps,
        "per_device_train_batch_size": job.rows // int(os.environ.get("WORLD_SIZE", "1")),
        "max_grad_norm": Plan(1).clip,
        "bf16": model.dtype == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": job.seed,
    }
    one = _sft(job, made, shared | changed) if score is None else _grpo(job, made, shared | changed, score)
    one.remove_callback(PrinterCallback)
    return one


def _learner(folder: Path, job: Job):
    """The base with the adapter as PEFT loads it (factors in fp32), and our AdamW and course of the rate for it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto")
    bare.generation_config.eos_token_id = job.end
    # frozen weights times the last positions, which lie apart in memory, are copied once a row: 17 s for 16 rows of Gemma
    bare.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: (inputs[0].contiguous(),))
    model = PeftModel.from_pretrained(bare, folder / "start", is_trainable=True)
    adam = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=job.method.lr, betas=BETAS, weight_decay=0.0
    )
    plan = Plan(job.method.steps, steady=getattr(job.method, "steady", False))
    return model, (adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda step: rate(step, plan)))


def _sft(job: Job, made: dict[str, Any], shared: dict[str, Any]):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = {
        "input_ids": [tokens for tokens, _ in job.pairs],
        "completion_mask": [[0] * (len(tokens) - answer) + [1] * answer for tokens, answer in job.pairs],
    }
    config = {"completion_only_loss": True, "max_length": None, "train_sampling_strategy": "sequential"}
    return SFTTrainer(args=SFTConfig(**config | shared), train_dataset=Dataset.from_dict(rows), **made)


def _grpo(job: Job, made: dict[str, Any], shared: dict[str, Any], score: Score):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def earned(completions: Sequence[str], place: Sequence[int], **_: Any) -> Sequence[float]:
        return score(place, completions)

    method = job.method
    low, high = method.clip
    config = {
        "loss_type": "grpo" if method.loss == "gspo" else method.loss,
        "importance_sampling_level": "sequence" if method.loss == "gspo" else "token",
        "scale_rewards": "none" if method.loss == "dr_grpo" else "group",
        "num_generations": method.group,
        "num_iterations": method.updates,
        "max_completion_length": job.limit,
        "epsilon": low,
        "epsilon_high": high,
        "beta": method.kl,
        "use_bias_correction_kl": False,  # the ratio times the divergence: another loss than that of grpo_loss.py
        "temperature": method.temperature,
        "shuffle_dataset": False,
    }
    rows = {"prompt": [example.prompt for example in job.asked], "place": range(len(job.asked))}
    return GRPOTrainer(args=GRPOConfig(**config | shared), train_dataset=Dataset.from_dict(rows), reward_funcs=[earned], **made)


def work(folder: Path) -> None:
    """Train; the first process tells its log as it goes and writes the adapter."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if state.is_world_process_zero and logs and "loss" in logs:
                call({"row": {"step": state.global_step} | logs})

    def call(what: Any) -> Any:
        line.write(json.dumps(what) + "\n")
        line.flush()
        return json.loads(line.readline())

    job: Job = pickle.loads((folder / "job").read_bytes())
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(folder / "line"))
        line = caller.makefile("rw", encoding="utf-8")
        one = trainer(folder, job, (lambda places, texts: call({"places": places, "texts": texts})) if job.asked else None)
        one.add_callback(Told())
        one.train()
    if one.is_world_process_zero():
        one.accelerator.unwrap_model(one.model).save_pretrained(folder / "skill", selected_adapters=["default"])


if __name__ == "__main__":
    work(Path(sys.argv[1]))
