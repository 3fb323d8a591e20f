"""What `replay` and `calibrate` share: the log, the engine it came from, and one run of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym import files
from infermax_gym.cli import inputs, output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.cost.profile_fit import ProfileFit
    from infermax_gym.engine import EngineConfig, SimulationResult
    from infermax_gym.evaluation import Contender
    from infermax_gym.workload.request_log import RequestLog

DEFAULT_POLICY = "vllm"
_PROFILE = "Cost from an operator profile"

Log = Annotated[
    Path, typer.Argument(metavar="LOG", help="Requests of a real engine and their times; docs/calibrate.md.")
]
PolicyName = Annotated[str, typer.Option("--policy", metavar="NAME", help="The policy that the engine ran.")]
Resolved = Annotated[
    Path | None,
    typer.Option(
        "--engine",
        metavar="FILE.json",
        help="What the engine resolved (KV tokens, block size, budget, sequences); options given here win.",
        show_default="none",
        rich_help_panel="Engine",
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="PREFIX",
        help="Fit the cost to PREFIX_dense.csv, PREFIX_attention.csv and PREFIX_per_sequence.csv (or .gz).",
        show_default="none",
        rich_help_panel=_PROFILE,
    ),
]
Layers = Annotated[int | None, typer.Option(min=1, metavar="N", help="Layers of the model.", rich_help_panel=_PROFILE)]
TensorParallel = Annotated[
    int, typer.Option("--tp", min=1, metavar="K", help="Devices that share each layer.", rich_help_panel=_PROFILE)
]
HiddenSize = Annotated[
    int, typer.Option(min=0, metavar="H", help="Hidden size of the model, if K > 1.", rich_help_panel=_PROFILE)
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="The GPU: what an all-reduce takes if K > 1, and how much unlike contexts cost.",
        show_default="unknown",
        rich_help_panel=_PROFILE,
    ),
]
ContextSkew = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        metavar="X",
        help="How far attention goes from that of the mean context to that of the longest.",
        show_default="the device's, else 0",
        rich_help_panel=_PROFILE,
    ),
]


@dataclass(frozen=True)
class ProfileOptions:
    """Options of `--profile`, as typed."""

    prefix: str | None
    layers: int | None
    tp: int
    hidden_size: int
    device: str | None
    context_skew: float | None


def read_log(path: Path) -> RequestLog:
    """The log, or an `InputError`."""
    from infermax_gym.workload import WorkloadError
    from infermax_gym.workload.request_log import read_request_log

    try:
        return read_request_log(path)
    except WorkloadError as error:
        raise InputError(str(error)) from None


def engine_of(given: inputs.EngineOptions, resolved: Path | None, profile: ProfileOptions) -> EngineConfig:
    """The engine: what was typed, else what the engine of the log resolved, else the defaults."""
    if given.cost is not None and profile.prefix is not None:
        raise InputError("--cost and --profile exclude each other; give one of them")
    if resolved is not None:
        known = _resolved(resolved)
        given = replace(given, **{name: value for name, value in known.items() if getattr(given, name) is None})
    config = given.config()
    if profile.prefix is None:
        return config
    if given.kv_tokens is None:
        raise InputError("--profile needs --kv-tokens, or --engine with a file that states them")
    limits = config.max_num_batched_tokens, config.max_num_seqs, config.num_kv_tokens
    return replace(config, cost=profile_fit(profile, *limits).cost)


def profile_fit(
    options: ProfileOptions, max_num_batched_tokens: int, max_num_seqs: int, num_kv_tokens: int
) -> ProfileFit:
    """The cost model that is fitted to a profile for an engine with these limits."""
    from infermax_gym.cost.profile_fit import CONTEXT_SKEW, Deployment, fit_profile
    from infermax_gym.cost.profiles import ProfileError, read_profile
    from infermax_gym.cost.roofline.devices import all_reduce_of
    from infermax_gym.cost.roofline.shapes import ShapeError

    if options.prefix is None or options.layers is None:
        raise InputError("--profile needs --layers N, the number of layers of the model")
    device = None if options.device is None else _device(options.device)
    if options.tp > 1 and (device is None or not options.hidden_size):
        raise InputError("--tp above 1 needs --device NAME and --hidden-size H, for its all-reduces")
    name = Path(options.prefix).name.lower().replace("_", "-")
    skew = options.context_skew
    if skew is None:
        skew = 0.0 if device is None else CONTEXT_SKEW.get((device.name, options.tp), 0.0)
    try:
        deployment = Deployment(
            options.layers,
            max_num_batched_tokens,
            max_num_seqs,
            num_kv_tokens,
            options.tp,
            options.hidden_size,
            None if device is None or options.tp == 1 else all_reduce_of(device, options.tp),
            skew,
        )
        profile = read_profile(options.prefix)
        return fit_profile(profile, deployment, name=name, source=f"fitted to the operator profile {name}")
    except (ProfileError, ShapeError) as error:
        raise InputError(str(error)) from None


def _device(name: str) -> Any:
    """A device of the table, however its name is spelled."""
    from infermax_gym.cli.errors import unknown
    from infermax_gym.cost.roofline.devices import known_devices

    def plain(text: str) -> str:
        return "".join(letter for letter in text.lower() if letter.isalnum())

    known = known_devices()
    found = next((device for device in known.values() if plain(device.name) == plain(name)), None)
    if found is None:
        raise unknown("device", name, known, "infermax list devices")
    return found


_RESOLVED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "kv_tokens": (("kv_cache", "num_kv_tokens"),),
    "block_size": (("kv_cache", "block_size"),),
    "max_num_batched_tokens": (
        ("scheduler_config", "max_num_batched_tokens"),
        ("engine_kwargs", "max_num_batched_tokens"),
    ),
    "max_num_seqs": (("scheduler_config", "max_num_seqs"), ("engine_kwargs", "max_num_seqs")),
    "max_model_len": (("engine_kwargs", "max_model_len"),),
}


def _resolved(path: Path) -> dict[str, Any]:
    """Engine options that a file of vLLM's resolved configuration states."""
    try:
        document = json.loads(files.read_text(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected an object with engine_kwargs, kv_cache and scheduler_config")
    parts = {name: part for name, part in document.items() if isinstance(part, dict)}
    found: dict[str, Any] = {}
    for name, places in _RESOLVED.items():
        value = next((v for part, key in places if (v := parts.get(part, {}).get(key)) is not None), None)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise InputError(f"{path}: {places[0][1]} must be a whole number from 1, got {value!r}")
        found[name] = value
    for name, part, key in (
        ("prefix_caching", "kv_cache", "enable_prefix_caching"),
        ("async_scheduling", "scheduler_config", "async_scheduling"),
    ):
        value = parts.get(part, {}).get(key)
        if value is not None:
            found[name] = bool(value)
    if not found:
        raise InputError(f"{path}: states no engine option; expected engine_kwargs, kv_cache or scheduler_config")
    return found


def replayer(
    log: RequestLog, contender: Contender, config: EngineConfig
) -> Callable[[CostModel, float], SimulationResult]:
    """What serves the log's requests with a cost model, each some seconds after its arrival in the log."""
    from infermax_gym.baselines.predict import predictions
    from infermax_gym.evaluation import run_contender, warm_up

    warm_up([contender], config, output.say_compiling)

    def replay(cost: CostModel, delay_s: float) -> SimulationResult:
        delayed = replace(log.workload, arrival_s=log.workload.arrival_s + delay_s) if delay_s else log.workload
        served = run_contender(contender, delayed, replace(config, cost=cost), predict=predictions)
        return replace(served.result, workload=log.workload, arrival_s=log.workload.arrival_s)

    return replay


def described(log: RequestLog, path: Path, policy: str, config: EngineConfig) -> dict[str, Any]:
    """Every option as it was understood."""
    return {
        "log": str(path),
        "num_requests": len(log),
        "num_dropped": log.num_dropped,
        "policy": policy,
        "cost": config.cost.name,
        "kv_tokens": config.num_kv_tokens,
        "block_size": config.block_size,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "max_num_seqs": config.max_num_seqs,
        "prefix_caching": config.prefix_caching,
        "empty_blocks_first": config.empty_blocks_first,
        "async_scheduling": config.async_scheduling,
    }


def percent(value: float | None) -> str:
    """A relative error as people read it."""
    return "-" if value is None else f"{100.0 * value:+.1f}%"


def draw(
    log: RequestLog,
    runs: Mapping[str, SimulationResult],
    path: Path,
    config: EngineConfig,
    title: str,
    split_s: float | None = None,
) -> None:
    """The picture of a log and its replays."""
    from infermax_gym.viewer.replay import draw_replay

    try:
        draw_replay(
            log,
            runs,
            path,
            title=title,
            kv_tokens=config.num_kv_tokens,
            max_num_seqs=config.max_num_seqs,
            split_s=split_s,
        )
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be drawn ({error})") from None
