"""`infermax steps`: the step log of a real vLLM server, as a workload, as measured batches, beside the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import inputs, options, output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.workload.step_log import Steps

DEFAULT_COST = "llama2-7b-a100"

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Step log of infermax_gym.vllm; docs/vllm.md.")]


def _file(text: str) -> Any:
    return typer.Option(metavar="FILE", help=text, show_default="none", rich_help_panel="Output")


def steps(
    folder: Folder,
    workload_out: Annotated[Path | None, _file("Write the requests as they came, a workload CSV.")] = None,
    batches_out: Annotated[Path | None, _file("Write the batches and what they took, a CSV for infermax fit.")] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="Simulate it and show the first iteration that differs."),
    ] = None,
    cost: options.Cost = None,
    json: options.Json = False,
) -> None:
    """Look into a server's step log."""
    from infermax_gym.workload import WorkloadError, write_workload
    from infermax_gym.workload.step_log import read_steps

    contender = None if against is None else inputs.policy(against)
    for path in (workload_out, batches_out):
        output.writable_file(path)
    try:
        log = read_steps(folder)
        if workload_out is not None:
            write_workload(log.workload, workload_out)
        if batches_out is not None:
            log.write_batches(batches_out)
    except WorkloadError as error:
        raise InputError(str(error)) from None
    document = _document(folder, log)
    if contender is not None:
        document["against"] = _against(log, contender, against or "", cost)
    if json:
        print(output.to_json(document))
        return
    for name, value in document.items():
        print(f"{name}: {value}")


def _document(folder: Path, log: Steps) -> dict[str, Any]:
    busy_s = sum(step.seconds for step in log.steps)
    return {
        "schema": 1,
        "log": str(folder),
        "policy": log.server["policy"],
        "vllm": log.server["vllm"],
        "num_requests": len(log.workload),
        "num_aborted": log.num_aborted,
        "num_iterations": len(log.steps),
        "num_preemptions": sum(len(step.preempted) for step in log.steps),
        "busy_s": busy_s,
        "ttft_s": float((log.first_token_s - log.workload.arrival_s).mean()),
        "latency_s": float((log.finish_s - log.workload.arrival_s).mean()),
        "most_waiting": max((step.num_waiting for step in log.steps), default=0),
    }


def _against(log: Steps, policy: Any, name: str, cost: str | None) -> dict[str, Any]:
    from infermax_gym.engine import EngineConfig, Policy, simulate
    from infermax_gym.evaluation.schedules import first_difference

    if not isinstance(policy, Policy):
        raise InputError(f"--against {name}: only policies of the table can be compared iteration by iteration")
    server = log.server
    config = EngineConfig(
        cost=inputs.cost_model(cost or DEFAULT_COST),
        num_kv_tokens=server["num_blocks"] * server["block_size"],
        block_size=server["block_size"],
        max_num_batched_tokens=server["max_num_batched_tokens"],
        max_num_seqs=server["max_num_seqs"],
        max_model_len=server["max_model_len"],
    )
    try:
        result = simulate(log.workload, config, policy, record_schedule=True)
    except ValueError as error:
        raise InputError(f"--against {name}: {error}") from None
    parting = first_difference(log, result.schedule or ())
    return {
        "policy": name,
        "num_iterations": result.num_iterations,
        "num_preemptions": result.num_preemptions,
        "ttft_s": float(result.ttft_s.mean()),
        "latency_s": float(result.latency_s.mean()),
        "first_difference": None if parting is None else {"iteration": parting.iteration, "why": parting.why},
    }
