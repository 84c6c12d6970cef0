"""Jobs that wait for each other, run in processes of one thread each.

Small models gain more from two processes of one thread than from one of two, and one thread gives the same bits every time.
A finished job leaves its answer in a file, so running the same jobs again goes on where the last run stopped.
"""

import json
import multiprocessing as mp
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import SkillweaveError
from .files import atomic_write
from .progress import progress, say


@dataclass(frozen=True)
class Job:
    """`run(tick=…, **arguments)` returns something JSON can hold; it starts when the jobs named in `after` are done."""

    name: str
    run: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    steps: int = 1
    """Its share of the progress bar: the number of `tick`s it will make."""


COSTS = "cpu.json"
"""The file beside the answers that says what they cost."""
_ticks: Any = None


Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Workers:
    """What runs jobs."""

    size: int
    """How many at once."""
    ticks: Any
    """The queue where they say how far they are: (job, steps, note)."""
    submit: Callable[..., Future]
    """Takes a function and its arguments."""


def run_jobs(jobs: Sequence[Job], folder: Path, workers: int, title: str, engine: Engine = "local") -> dict[str, Any]:
    """Run `jobs` (the most urgent first) and return their answers by name; one found in `folder` is not computed again.

    In `workers` processes of this machine, or as tasks of a Ray cluster with as many at once as it has cores (`cluster.py`).
    """
    known = spent(folder)
    found = {job.name: folder / f"{job.name}.json" for job in jobs if job.name in known}
    done = {name: json.loads(path.read_text()) for name, path in found.items() if path.is_file()}
    waiting = [job for job in jobs if job.name not in done]
    if not waiting:
        return done
    if engine == "local":
        _warn_if_busy()
    with (
        _workers(engine, workers) as pool,
        progress(sum(job.steps for job in waiting), title, unit="steps") as tick,
        _listening(pool.ticks, tick),
    ):
        _drive(pool, waiting, done, folder)
    return done


def _warn_if_busy() -> None:
    """Say that times will be longer when other programs already have all cores."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        say(f"other programs keep this machine busy (load {load:.1f} on {cores} cores): this takes longer than it would alone")


def _workers(engine: Engine, count: int) -> AbstractContextManager[Workers]:
    if engine == "local":
        return processes(count)
    from .cluster import cluster

    return cluster(count)


@contextmanager
def processes(count: int) -> Iterator[Workers]:
    """Processes of one thread each; killed when the block raises, since they hold nothing that is not saved aside first."""
    context = mp.get_context("spawn")
    with context.Manager() as manager:
        ticks = manager.Queue()
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(ticks,))
        try:
            yield Workers(count, ticks, pool.submit)
        except BrokenProcessPool as error:
            hint = "free some memory and run the same command again: what is done is kept"
            raise SkillweaveError("a worker was killed, most likely because memory ran out.", hint) from error
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def spent(folder: Path) -> dict[str, float]:
    """The seconds of one core that each job with an answer in `folder` took, whichever run it was done in."""
    path = folder / COSTS
    return json.loads(path.read_text()) if path.is_file() else {}


def _drive(pool: Workers, waiting: list[Job], done: dict[str, Any], folder: Path) -> None:
    running: dict[Future, Job] = {}
    while waiting or running:
        for job in [job for job in waiting if all(name in done for name in job.after)]:
            if len(running) < pool.size:
                waiting.remove(job)
                running[pool.submit(call, job.name, job.steps, job.run, dict(job.arguments))] = job
        assert running, f"{', '.join(job.name for job in waiting)} wait for jobs that nobody does"
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            job = running.pop(future)
            done[job.name], seconds = future.result()
            atomic_write(folder / COSTS, json.dumps(spent(folder) | {job.name: seconds}))
            atomic_write(folder / f"{job.name}.json", json.dumps(done[job.name]))


def _start_worker(ticks) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_die_with_parent, daemon=True).start()
    prepare(ticks)


def prepare(ticks) -> None:
    """Make this process a worker of one thread that tells `ticks` how far it is."""
    global _ticks
    _ticks = ticks
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)


def _die_with_parent() -> None:
    """A parent that is killed tells nobody: without this its workers would work on, and then wait for ever."""
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def call(name: str, steps: int, run: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, float]:
    """The job's answer, and the seconds of one core that it took."""
    told, began = 0, time.process_time()

    def tick(count: int, note: str) -> None:
        nonlocal told
        told += count
        _ticks.put((name, count, note))

    answer = run(**arguments, tick=tick)
    _ticks.put((name, steps - told, "done"))  # what it did not count: evaluations, and steps it stopped before
    return answer, time.process_time() - began


@contextmanager
def _listening(ticks, tick) -> Iterator[None]:
    """Pass on what workers say until the block ends."""
    stop = threading.Event()
    listener = threading.Thread(target=_listen, args=(ticks, tick, stop), daemon=True)
    listener.start()
    try:
        yield
    finally:
        stop.set()
        listener.join(timeout=2)


def _listen(ticks, tick, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            name, steps, note = ticks.get(timeout=0.2)
        except queue.Empty:
            continue
        except (EOFError, OSError):
            return
        tick(steps, note=f"{name} · {note}")
