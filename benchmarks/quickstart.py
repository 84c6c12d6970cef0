"""The quickstart over several seeds -> results/quickstart.json.

    python benchmarks/quickstart.py [--effort paper] [--seeds 0 1 2] [--keep DIR]

Each seed has a library of its own, and its own draw of the skills' training data, the 24 invoices, the test invoices and all
starting weights. With --keep, an interrupted run goes on where it was. `cpu_minutes` counts training only.
"""

import argparse
import tempfile
import time
from pathlib import Path

from skillweave.jobs import run_jobs
from skillweave.library import Library
from skillweave.measure.stats import student
from skillweave.papers.reproduction import shown
from skillweave.quickstart import ARMS, CRITERION, EFFORTS, QUESTION, SKILLS, Setting, judge, plan, summary
from skillweave.record import write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--effort", choices=EFFORTS, default="paper")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="folder for the libraries")
    parser.add_argument("--out", type=Path, default=Path("results/quickstart.json"))
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        runs, alone = [], []
        for seed in options.seeds:
            library = (options.keep or Path(scratch)) / f"seed-{seed}"
            Library(library, create=True)
            at = Setting(EFFORTS[options.effort], library, seed)
            runs.append(run_jobs(plan(at), at.work, 2, f"quickstart, seed {seed}"))
            alone.append({name: Library(library).get(name).provenance["scores"][0]["value"] for name in SKILLS})
    arms = {name: {k: shown(v) for k, v in summary([run[name] for run in runs]).items()} for name in ARMS if name in runs[0]}
    chosen = {name: [run[name]["chosen"] for run in runs] for name in arms if "chosen" in runs[0][name]}
    skills = sum(run[name]["seconds"] for run in runs for name in run if name.startswith("skill ")) / 60 / len(runs)
    training = [job["seconds"] for run in runs for name, job in run.items() if isinstance(job, dict) and "search" not in name]
    write_result(
        options.out,
        name=options.out.stem,
        kind="quickstart",
        command=f"python benchmarks/quickstart.py --effort {options.effort} --seeds {' '.join(map(str, options.seeds))} "
        f"--out {options.out}",
        seeds=options.seeds,
        cpu_minutes=sum(training) / 60,
        verdict=judge(runs),
        values={
            "criterion": CRITERION,
            "arms": arms,
            "chosen": chosen,
            "minutes_to_learn_the_skills": round(skills, 2),
            "minutes_on_the_clock": round((time.monotonic() - began) / 60, 2),
            "skills_alone": {name: shown(student([one[name] for one in alone])) for name in SKILLS},
            "question": QUESTION,
            "answers": [run["example"] for run in runs],
        },
    )


if __name__ == "__main__":
    main()
