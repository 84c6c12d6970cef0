"""Jobs as tasks of a Ray cluster: the one that RAY_ADDRESS names ("auto": the one of this machine), or one for this run.

Ray starts a task again on another worker when its own is lost. Jobs that are sent to other machines find skillweave there, and
folders by the same paths.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from .errors import BadOption, SkillweaveError
from .jobs import Workers, prepare

LOCAL = "local"
PATIENCE = 10.0
"""Seconds that a cluster may take to answer."""


@contextmanager
def cluster(count: int) -> Iterator[Workers]:
    """A cluster of as many cores as it has; one that is started here has `count`, and ends with the block."""
    try:
        import ray
    except ImportError:
        hint = "pip install 'skillweave[ray]', or leave out --engine: jobs then run on this machine"
        raise BadOption("engine is ray, but Ray is not installed.", hint) from None
    address = os.environ.get("RAY_ADDRESS", LOCAL)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    own: dict[str, Any] = {"num_cpus": count, "include_dashboard": False} if address == LOCAL else {}
    try:
        if ":" in address:  # Ray itself would go on trying for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        hint = "start one with `ray start --head`, or unset RAY_ADDRESS: a cluster on this machine is then started"
        raise SkillweaveError(f"there is no Ray cluster at {address!r} (RAY_ADDRESS).", hint) from error
    given: list[Any] = []
    try:
        from ray.util.queue import Queue

        ticks, run = Queue(actor_options={"num_cpus": 0}), ray.remote(num_cpus=1)(_work)

        def submit(*call: Any) -> Future:
            given.append(run.remote(ticks, *call))
            return given[-1].future()

        yield Workers(max(1, int(ray.cluster_resources().get("CPU", 1))), ticks, submit)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        hint = "see that its machines have the memory, and run the same command again: what is done is kept"
        raise SkillweaveError(f"Ray could not finish a job ({type(error).__name__}).", hint) from error
    except BaseException:
        for task in given:
            ray.cancel(task, force=True)
        raise
    finally:
        ray.shutdown()


def _work(ticks: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    prepare(ticks)
    return call(*arguments)
