"""`infermax cost`: what an iteration of a model costs on a GPU, where its time goes, and how much KV fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import cost_picture, inputs, options, output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.cost.engines import Engine
    from infermax_gym.cost.roofline import Batch, Roofline

_ROOFLINE = "Roofline"


def cost(
    name: Annotated[
        str | None,
        typer.Argument(metavar="MODEL@DEVICE[xN][/WEIGHTS]", help="An engine, such as qwen3-32b@h100x2/fp8."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.json", help="A model's Hugging Face config.json.", rich_help_panel=_ROOFLINE),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model of `list models`.", rich_help_panel=_ROOFLINE)
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="A GPU of `list devices`.", rich_help_panel=_ROOFLINE)
    ] = None,
    tp: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="GPUs that share the model.", show_default="1", rich_help_panel=_ROOFLINE
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="bf16|fp8|int8|int4|fp4|mxfp4",
            help="How weights are held.",
            show_default="as the checkpoint",
            rich_help_panel=_ROOFLINE,
        ),
    ] = None,
    kv: Annotated[str, typer.Option(metavar="bf16|fp8", help="How KV is held.", rich_help_panel=_ROOFLINE)] = "bf16",
    gpu_memory_utilization: Annotated[
        float, typer.Option(metavar="X", help="Share of the memory to use.", rich_help_panel=_ROOFLINE)
    ] = 0.92,
    max_num_batched_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000_000,
            metavar="N",
            help="Token budget.",
            show_default="vLLM's for the GPU",
            rich_help_panel=_ROOFLINE,
        ),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000_000,
            metavar="N",
            help="Most requests at once.",
            show_default="vLLM's for the GPU",
            rich_help_panel=_ROOFLINE,
        ),
    ] = None,
    context: Annotated[int, typer.Option(min=1, max=10_000_000, metavar="N", help="Tokens behind the decodes.")] = 1024,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="COST.json", help="Write the cost model, for --cost.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show the coefficients, the KV capacity, tokens/s and where the time goes; of a known cost, its coefficients."""
    output.writable_file(out)
    known = None if name is None else known_cost(name)
    if known is not None:
        _no_more((config, model, device, tp, weights), f"{name} is a known cost; leave out the other options")
        document = {"schema": 1, "name": known.name, "kind": "known", **_model_document(known)}
        _finish(known, document, out, json, lambda: cost_picture.show_known(known))
        return
    from infermax_gym.cost.roofline import ShapeError, estimate

    try:
        shape, found_device, num_devices, found_weights = _engine(name, config, model, device, tp, weights)
        found = estimate(
            shape,
            found_device,
            num_devices,
            weights=found_weights,
            kv=kv,
            gpu_memory_utilization=gpu_memory_utilization,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
        )
    except ShapeError as error:
        raise InputError(str(error)) from None
    batches = shown_batches(found, context)
    fitted = fitted_engine(name)
    document = _document(found, batches) | {"fitted": None if fitted is None else fitted.name}
    _finish(found.cost, document, out, json, lambda: cost_picture.show(found, batches, fitted))


def known_cost(name: str) -> CostModel | None:
    """The cost that comes with the package under this name: a preset, or an engine whose backend is named."""
    from infermax_gym.cost import COSTS
    from infermax_gym.cost.engines import BACKENDS

    if any(part.lower() in BACKENDS for part in name.split("/")[1:]):
        return inputs.cost_model(name)
    return COSTS.get(name)


def fitted_engine(name: str | None) -> Engine | None:
    """The engine of the table that `--cost` takes for this name, if there is one."""
    from infermax_gym.cost.engines import EngineNameError, find_engine

    try:
        return None if name is None else find_engine(name)
    except EngineNameError:
        return None


def _engine(
    name: str | None, config: Path | None, model: str | None, device: str | None, tp: int | None, weights: str | None
) -> tuple[Any, Any, int, str | None]:
    """Model, device, their number and the weights' format, from a name or from options."""
    from infermax_gym.cost.roofline import model_named, parse_devices, parse_name, shape_from_config

    if name is not None:
        _no_more((config, model, device), "give MODEL@DEVICE, or --config or --model with --device, not both")
        engine = parse_name(name)
        _no_more((None if tp in (None, engine.num_devices) else tp,), f"--tp {tp}: {name!r} says how many devices")
        _no_more((weights if engine.weights else None,), f"--weights: {name!r} says how weights are held")
        return engine.shape, engine.device, engine.num_devices, weights or engine.weights
    if (config is None) == (model is None) or device is None:
        raise InputError("needs MODEL@DEVICE, such as llama-3.1-8b@h100, or --config or --model with --device")
    shape = shape_from_config(config) if config is not None else model_named(str(model))
    found, counted = parse_devices(device)
    if tp is not None and counted not in (1, tp):
        raise InputError(f"--tp {tp}: --device {device} says how many devices")
    return shape, found, tp or counted, weights


def _no_more(given: tuple[Any, ...], message: str) -> None:
    if any(value is not None for value in given):
        raise InputError(message)


def shown_batches(found: Roofline, context: int) -> list[Batch]:
    """Batches to show: decodes up to what the KV holds, prefills up to the token budget, both together."""
    from infermax_gym.cost.roofline import Batch

    sizes, num_kv_tokens = found.sizes, found.memory.num_kv_tokens
    most = min(sizes.max_num_seqs, sizes.max_num_batched_tokens, num_kv_tokens // (context + 1))
    counts = [count for count in (1, 8, 32, 128, 256, 1024) if count <= most]
    if not counts and most > 0:
        counts = [most]
    decodes = [Batch(num_decodes=count, context=context) for count in counts]
    longest = min(sizes.max_num_batched_tokens, num_kv_tokens)
    prefills = [Batch(1, chunk) for chunk in (512, 2048, 8192) if chunk <= longest] or [Batch(1, longest)]
    beside = min(32, most)
    left = min(num_kv_tokens - beside * (context + 1), sizes.max_num_batched_tokens - beside)
    mixed = [Batch(1, min(left, 2048 - beside), 0, beside, context)] if beside > 0 and left > 0 else []
    return [*decodes, *prefills, *mixed]


def _document(found: Roofline, batches: list[Batch]) -> dict[str, Any]:
    from infermax_gym.cost.roofline import breakdown

    lines = []
    for batch in batches:
        one = breakdown(found.parts, batch)
        lines.append(
            {
                **vars(batch),
                "seconds": one.seconds,
                "tokens_per_s": batch.num_tokens / one.seconds,
                "bound": one.bound,
                "parts_s": one.bars,
            }
        )
    return {
        "schema": 1,
        "name": found.name,
        "kind": "roofline",
        "num_devices": found.num_devices,
        "weights": found.weights,
        "kv": found.kv,
        "kv_tokens": found.memory.num_kv_tokens,
        "memory_gib": {
            "total": found.memory.total_gib,
            "weights": found.memory.weights_gib,
            "other": found.memory.other_gib,
            "kv": found.memory.kv_gib,
        },
        **vars(found.sizes),
        "assumed": dict(found.assumed),
        "batches": lines,
        **_model_document(found.cost),
    }


def _model_document(model: CostModel) -> dict[str, Any]:
    import json

    return {"cost": json.loads(model.to_json())}


def _finish(model: CostModel, document: Mapping[str, Any], out: Path | None, json: bool, show: Any) -> None:
    if out is not None:
        output.write_text(out, model.to_json() + "\n")
    if json:
        print(output.to_json(document))
        return
    show()
    if out is not None:
        print(f"wrote {out}")
