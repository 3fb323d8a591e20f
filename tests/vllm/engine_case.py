"""The real engine with a tiny model, its clock driven by the simulator's cost, against the simulator.

`python -m tests.vllm.engine_case HOW` runs where vllm is installed; HOW is `fcfs` (vLLM's own scheduler, logged), a
policy or an agent. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

NUM_BLOCKS, BLOCK_SIZE, BUDGET, NUM_REQUESTS = 150, 32, 256, 150
KNOBS: dict[str, dict[str, Any]] = {
    # so little headroom that some are preempted
    "spf-headroom-5": {"policy": "spf-headroom", "knobs": {"headroom_tokens": 5.0}},
    # its token budget follows from the engine
    "spf-share": {"policy": "spf-share", "cost": "llama2-7b-a100"},
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "torch_dtype": "float32",
}


def tiny_engine(folder: Path, settings: dict[str, Any]) -> Any:
    """vLLM in this process, a random model inside."""
    from vllm import LLM

    (folder / "config.json").write_text(json.dumps(CONFIG))
    return LLM(
        model=str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        block_size=BLOCK_SIZE,
        num_gpu_blocks_override=NUM_BLOCKS + 1,
        max_num_batched_tokens=BUDGET,
        max_num_seqs=64,
        max_model_len=4096,
        enable_prefix_caching=False,
        disable_log_stats=True,
        scheduler_cls="infermax_gym.vllm.PolicyScheduler",
        additional_config={"infermax": settings},
    ).llm_engine


class Driven:
    """A real engine whose clock is moved by the cost of each batch."""

    def __init__(self, engine: Any, workload: Any, cost: Any) -> None:
        self.engine, self.workload, self.cost = engine, workload, cost
        self.scheduler = engine.engine_core.engine_core.scheduler
        self.clock_s = 0.0
        self.iterations: list[Any] = []
        self.preempted: list[int] = []
        self.known_at_start: dict[str, int] = {}
        plug_in = self.scheduler.infermax
        plug_in.clock = lambda: self.clock_s
        plug_in.origin_s = 0.0
        if plug_in.decisions is not None:
            plug_in.decisions._origin_s = 0.0
        if plug_in.log is not None:
            plug_in.log._origin_s = 0.0
        self._schedule, self.scheduler.schedule = self.scheduler.schedule, self.schedule
        self._preempt, self.scheduler._preempt_request = self.scheduler._preempt_request, self.preempt

    def preempt(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """In the place of the scheduler's."""
        self.preempted.append(number(request.request_id))
        self.known_at_start.pop(request.request_id, None)
        self._preempt(request, *args, **kwargs)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of the scheduler's: the iteration takes its cost."""
        from tests.vllm.real import RealIteration, seconds_of

        output = self._schedule(*args, **kwargs)
        batch = output.num_scheduled_tokens
        if not batch:
            return output
        prefills, decodes = [], []
        for name, tokens in batch.items():
            request = self.scheduler.requests[name]
            before = request.num_computed_tokens - tokens
            if request.num_tokens == self.known_at_start.setdefault(name, request.num_tokens):
                prefills.append((tokens, before))
            else:
                decodes.append(before)
        start_s = self.clock_s
        self.clock_s = start_s + seconds_of(self.cost, prefills, decodes)
        members = tuple((number(name), tokens) for name, tokens in batch.items())
        self.iterations.append(RealIteration(start_s, self.clock_s, members, tuple(self.preempted)))
        self.preempted.clear()
        return output

    def run(self) -> None:
        """Serve the workload to its end."""
        from vllm import SamplingParams

        arrived, n = 0, len(self.workload)
        while arrived < n or self.engine.has_unfinished_requests():
            while arrived < n and self.workload.arrival_s[arrived] <= self.clock_s:
                params = SamplingParams(
                    max_tokens=int(self.workload.num_output_tokens[arrived]), ignore_eos=True, detokenize=False
                )
                prompt = {"prompt_token_ids": [1 + i % 500 for i in range(self.workload.num_prompt_tokens[arrived])]}
                self.engine.add_request(
                    str(arrived), prompt, params, arrival_time=float(self.workload.arrival_s[arrived])
                )
                arrived += 1
            if self.engine.has_unfinished_requests():
                self.engine.step()
            else:
                self.clock_s = float(self.workload.arrival_s[arrived])


def number(name: str) -> int:
    """Which request of the workload it is; vLLM adds to the names it is given."""
    return int(name.split("-")[0])


def simulated(how: str, workload: Any, config: Any) -> Any:
    """What the simulator does."""
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.engine import simulate
    from infermax_gym.vllm import as_served
    from infermax_gym.vllm.settings import read_settings
    from tests.vllm.fuzz import CONTROLLERS, plug_in_cases
    from tests.vllm.fuzz import simulated as run

    if how == "fcfs":
        return simulate(workload, config, POLICIES["vllm"], record_schedule=True)
    if how in KNOBS:
        settings = read_settings({"infermax": settings_of(how)})
        policy = settings.policy if settings.shares is None else as_served(settings.shares.resolve(config))
        return simulate(workload, config, policy, record_schedule=True)
    case = next(case for case in plug_in_cases() if case[0] == how)
    assert how in CONTROLLERS or case[1] is not None
    return run(case, workload, config, None)


def settings_of(how: str) -> dict[str, Any]:
    """What a user would write."""
    from tests.vllm.fuzz import CONTROLLERS, SELECTORS

    if how == "fcfs":
        return {}
    if how in KNOBS:
        return KNOBS[how]
    if how in SELECTORS:
        return {"agent": how, "cost": "llama2-7b-a100"}
    if how in CONTROLLERS:
        return {"agent": how, "without": list(CONTROLLERS[how]), "cost": "llama2-7b-a100"}
    from infermax_gym.baselines.policies import POLICIES

    return {"policy": how} if how in POLICIES else {"agent": how}


def main(how: str) -> int:
    """Run a case; 1 if anything differs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "model").mkdir()
        log = folder / "log"
        engine = tiny_engine(folder / "model", {**settings_of(how), "log": str(log)})
        # numba comes after the engine: in one process both bring an LLVM.
        import numpy as np

        from infermax_gym.cost import COSTS
        from infermax_gym.engine.config import EngineConfig
        from infermax_gym.workload import Workload, make_workload
        from infermax_gym.workload.step_log import read_steps

        drawn = make_workload("azure-conv", NUM_REQUESTS, seed=1)
        workload = Workload(
            drawn.arrival_s * 0.2,
            np.minimum(drawn.num_prompt_tokens, 1000),
            np.minimum(drawn.num_output_tokens, 150),
        )
        config = EngineConfig(
            cost=COSTS["llama2-7b-a100"],
            num_kv_tokens=NUM_BLOCKS * BLOCK_SIZE,
            block_size=BLOCK_SIZE,
            max_num_batched_tokens=BUDGET,
            max_num_seqs=64,
            max_model_len=4096,
            max_output_tokens=4096,
        )
        driven = Driven(engine, workload, config.cost)
        driven.run()
        result = simulated(how, workload, config)
        real = [(i.batch, i.preempted, i.start_s, i.end_s) for i in driven.iterations]
        ours = [(i.batch, i.preempted, i.start_s, i.end_s) for i in result.schedule]
        parting = next((i for i, (a, b) in enumerate(zip(real, ours, strict=False)) if a != b), None)
        steps = read_steps(log)
        logged = [(tuple((m[0], m[1]) for m in s.batch), s.preempted, s.start_s, s.end_s) for s in steps.steps]
        record = {
            "how": how,
            "num_iterations": len(real),
            "num_preemptions": sum(len(i[1]) for i in real),
            "first_difference": parting if parting is not None or len(real) == len(ours) else len(ours),
            "log_differs": next((i for i, (a, b) in enumerate(zip(real, logged, strict=False)) if a != b), None),
            "num_logged": len(logged),
        }
        print(json.dumps(record))
        return int(record["first_difference"] is not None or record["log_differs"] is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
