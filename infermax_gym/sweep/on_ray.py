"""Tasks on a Ray cluster, this machine by default. Shared data goes once into the cluster's shared memory."""

from __future__ import annotations

import socket
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any

from infermax_gym.sweep.store import StoreError
from infermax_gym.sweep.tasks import MAX_ATTEMPTS, Outcome, Task, Work, attempt

_PATIENCE_S = 10.0
_PER_CPU = 2  # tasks under way, so that none waits for this process
_NUM_KEPT = 64  # shared data that the cluster's memory holds at a time


def run_on_ray(
    work: Work,
    tasks: Iterable[Task],
    *,
    address: str | None = None,
    num_workers: int | None = None,
    max_attempts: int = MAX_ATTEMPTS,
) -> Iterator[Outcome]:
    """Run tasks on Ray; yields outcomes as they come, like `run_in_processes`.

    Args:
        work: what to do; its modules are importable on every node.
        tasks: what to do it with.
        address: of a cluster, such as `auto` or `ray://head:10001`; None: one is started on this machine, and ended.
        num_workers: CPUs of the cluster that is started; all of the machine by default.
        max_attempts: of a task whose process or node dies.

    Raises:
        StoreError: Ray cannot be started, or the cluster not reached.
    """
    _look_for(address)
    import ray
    from ray.exceptions import RayError, RayTaskError

    began = not ray.is_initialized()
    if began:
        local: dict[str, Any] = {} if address else {"num_cpus": num_workers, "include_dashboard": False}
        try:
            # "local": without an address Ray looks for a cluster that somebody else has started here.
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **local)
        except Exception as error:  # whatever a system or a network can do wrong
            reason = " ".join(str(error).split())[:200]
            what = f"reached at {address}" if address else "started; --executor processes does without"
            raise StoreError(f"Ray cannot be {what} ({type(error).__name__}: {reason})") from None
    once = ray.remote(max_retries=0, num_cpus=1)(_once)
    kept: OrderedDict[str, Any] = OrderedDict()
    todo, again = iter(tasks), deque[tuple[Task, int]]()
    under_way: dict[Any, tuple[Task, int]] = {}
    most = _PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        while True:
            while len(under_way) < most:
                task, count = again.popleft() if again else (next(todo, None), 0)
                if task is None:
                    break
                try:
                    shared = _put(ray, work, task, kept)
                except Exception as error:
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                    yield Outcome(task, None, reason, count + 1, 0.0)
                    continue
                under_way[once.remote(work, task, shared)] = task, count + 1
            if not under_way:
                return
            ready, _ = ray.wait(list(under_way), num_returns=1)
            for reference in ready:
                task, count = under_way.pop(reference)
                try:
                    value, error_line, wall_s = ray.get(reference)
                except RayError as error:
                    if count < max_attempts and not isinstance(error, RayTaskError):
                        again.append((task, count))
                        continue
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                    value, error_line, wall_s = None, reason, 0.0
                yield Outcome(task, value, error_line, count, wall_s)
    finally:
        if began:
            ray.shutdown()
        else:
            for reference in under_way:
                ray.cancel(reference, force=True)


def _look_for(address: str | None) -> None:
    """See that somebody listens at HOST:PORT or ray://HOST:PORT: Ray itself would try for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise StoreError(f"Ray cannot be reached at {address} ({error})") from None


def _put(ray: Any, work: Work, task: Task, kept: OrderedDict[str, Any]) -> Any:
    key = task.shared.key
    if key not in kept:
        kept[key] = ray.put(work.load(task.shared.recipe))
        if len(kept) > _NUM_KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def _once(work: Work, task: Task, shared: Any) -> tuple[Any, str | None, float]:
    return attempt(work, task, lambda: shared)
