"""Tasks on processes of this machine, one at a time each. A process that dies costs its own task one attempt."""

from __future__ import annotations

import multiprocessing
import signal
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from infermax_gym.sweep.tasks import MAX_ATTEMPTS, Outcome, Shared, Task, Work, attempt

_NUM_KEPT = 4  # shared data of the last tasks, in each process
_PATIENCE_S = 5.0


@dataclass
class _Worker:
    process: Any
    connection: Connection
    task: Task | None = None
    num_attempts: int = 0


def run_in_processes(
    work: Work, tasks: Iterable[Task], *, num_workers: int, max_attempts: int = MAX_ATTEMPTS
) -> Iterator[Outcome]:
    """Run tasks on `num_workers` processes; yields outcomes as they come.

    A task that raises has failed: it would do so again. One whose process is killed is begun anew, up to
    `max_attempts` times. Closing the iterator ends the processes; so does the end of this process, however it comes.

    Args:
        work: what to do.
        tasks: what to do it with; taken one by one as processes become free.
        num_workers: processes, at least 1.
        max_attempts: see above.
    """
    todo, again = iter(tasks), deque[tuple[Task, int]]()
    workers: list[_Worker] = []
    try:
        while True:
            for worker in [*workers, *[None] * (num_workers - len(workers))]:
                if worker is not None and worker.task is not None:
                    continue
                task, count = again.popleft() if again else (next(todo, None), 0)
                if task is None:
                    break
                if worker is None:
                    workers.append(worker := _begin(work))
                worker.task, worker.num_attempts = task, count + 1
                _send(worker.connection, task)
            busy = [worker for worker in workers if worker.task is not None]
            if not busy:
                return
            ready = set(wait([worker.connection for worker in busy]))
            for worker in busy:
                if worker.connection in ready:
                    task, count = worker.task, worker.num_attempts
                    assert task is not None
                    reply, worker.task = _reply(worker.connection), None
                    if reply is not None:
                        yield Outcome(task, reply[0], reply[1], count, reply[2])
                        continue
                    workers.remove(worker)
                    code = _end(worker)
                    if count < max_attempts:
                        again.append((task, count))
                    else:
                        yield Outcome(task, None, f"its process ended {count} times, with exit code {code}", count, 0.0)
    finally:
        for worker in workers:
            _end(worker)


def _begin(work: Work) -> _Worker:
    # A fresh interpreter: nothing of this process's threads, locks or signal handlers goes with it.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _send(connection: Connection, task: Task) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it has died, as the wait for its answer will tell
        connection.send(task)


def _reply(connection: Connection) -> tuple[Any, str | None, float] | None:
    try:
        reply: tuple[Any, str | None, float] = connection.recv()
        return reply
    except (EOFError, ConnectionResetError):
        return None


def _end(worker: _Worker) -> int | None:
    worker.connection.close()
    worker.process.kill()
    worker.process.join(_PATIENCE_S)
    code: int | None = worker.process.exitcode
    return code


def _serve(connection: Connection, work: Work) -> None:
    """What a process does: one task after another, until nobody sends any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; whoever drives decides
    kept: OrderedDict[str, Any] = OrderedDict()

    def load(shared: Shared) -> Any:
        if shared.key not in kept:
            kept[shared.key] = work.load(shared.recipe)
        kept.move_to_end(shared.key)
        if len(kept) > _NUM_KEPT:
            kept.popitem(last=False)
        return kept[shared.key]

    while True:
        try:
            task: Task = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        value, error, wall_s = attempt(work, task, lambda shared=task.shared: load(shared))  # type: ignore[misc]
        try:
            connection.send((value, error, wall_s))
        except (BrokenPipeError, ConnectionResetError):
            return  # nobody is there any more
