"""`infermax fit`: measured batches in, a cost model out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import options, output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.cost.fitting import Fit
    from infermax_gym.cost.measured import Measured

_REGIONS = ("decode", "prefill", "mixed")
_RANGES = ("num_tokens", "num_decodes", "decode_context")
_PICTURES = (".png", ".svg", ".pdf")


def fit(
    measured: Annotated[
        Path, typer.Argument(metavar="MEASURED.csv", help="A line for each batch.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="COST.json", help="Where the cost model goes.")],
    name: Annotated[str | None, typer.Option(help="Of the model.", show_default="that of --out")] = None,
    num_devices: Annotated[int, typer.Option("--devices", min=1, metavar="N", help="Devices of a replica.")] = 1,
    price: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="USD", help="Of a device and hour.", show_default="unknown"),
    ] = None,
    convex: Annotated[
        bool, typer.Option("--convex", help="Only a model that the constraint program can take.")
    ] = False,
    kv_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Leave out batches beyond N KV tokens.", show_default="none")
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Warn unless batches of N tokens were measured.", show_default="none"),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Warn unless N requests at once were measured.", show_default="none"),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|.svg", help="Residuals of every batch.", rich_help_panel="Output"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Fit a cost model to measured batches: the file that `infermax profile` writes, or your own."""
    from infermax_gym.cost.fitting import FitError, fit_cost
    from infermax_gym.cost.measured import MeasuredError, read_measured

    for path in (out, picture):
        output.writable_file(path)
    if picture is not None and picture.suffix not in _PICTURES:
        raise InputError(f"--picture {picture}: expected a name that ends in {', '.join(_PICTURES)}")
    try:
        batches = read_measured(measured)
        if kv_tokens is not None:
            batches = batches.within(kv_tokens)
        found = fit_cost(
            batches.features,
            batches.seconds,
            name=name or out.stem,
            concave=False if convex else None,
            num_devices=num_devices,
            price_usd_per_device_hour=price,
            source=f"infermax fit {measured.name}, {len(batches.seconds)} batches",
        )
    except (MeasuredError, FitError) as error:
        raise InputError(f"{error}" if str(measured) in str(error) else f"{measured}: {error}") from None
    output.write_text(out, found.cost.to_json() + "\n")
    if picture is not None:
        _draw(picture, batches, found)
    _warn(found, {"num_tokens": max_num_batched_tokens, "num_decodes": max_num_seqs})
    if json:
        print(output.to_json(_document(measured, out, batches, found)))
    else:
        _print(out, found)


def _warn(found: Fit, wanted: Mapping[str, int | None]) -> None:
    """What the model says without a measurement behind it."""
    missing = [region for region in _REGIONS if region not in found.errors]
    if missing:
        output.warn(f"no {' and no '.join(missing)} batch was held out; what the model says of them is a guess")
    for feature, most in wanted.items():
        measured = found.measured_range[feature][1]
        if most is not None and most > measured:
            output.warn(f"{feature} up to {most} is asked for, but only {measured:.0f} were measured")


def _document(path: Path, out: Path, batches: Measured, found: Fit) -> dict[str, Any]:
    return {
        "schema": 1,
        "config": {"measured": str(path), "num_batches": len(batches.seconds)},
        "cost": str(out),
        "is_convex": found.cost.is_convex,
        "held_out": {region: asdict(error) for region, error in found.errors.items()},
        "measured_range": {feature: list(ends) for feature, ends in found.measured_range.items()},
        "pieces_s": {str(piece): seconds for piece, seconds in found.pieces},
    }


def _print(out: Path, found: Fit) -> None:
    from rich import box
    from rich.table import Table

    console = output.console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("held-out batches", "number", "MAPE", "p95"):
        table.add_column(heading, justify="left" if heading == "held-out batches" else "right")
    for region, error in found.errors.items():
        table.add_row(region, str(error.num_batches), f"{100 * error.mape:.1f} %", f"{100 * error.p95:.1f} %")
    console.print(table)
    pieces = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    pieces.add_column("the model is the sum of")
    pieces.add_column("times seconds", justify="right")
    for piece, seconds in found.pieces:
        pieces.add_row(str(piece), f"{seconds:.4g}")
    console.print(pieces)
    tokens, decodes, context = (f"{found.measured_range[name][1]:.0f}" for name in _RANGES)
    console.print(
        f"measured up to {tokens} tokens, {decodes} decodes and {context} of their context tokens; "
        "beyond that the model extrapolates"
    )
    console.print(f"written to {out}")


def _draw(path: Path, batches: Measured, found: Fit) -> None:
    from infermax_gym.cost.features import NUM_TOKENS
    from infermax_gym.cost.fitting import regions
    from infermax_gym.viewer.residuals import draw_residuals

    draw_residuals(
        path,
        batches.features[:, NUM_TOKENS],
        batches.seconds,
        found.predicted_s,
        regions(batches.features),
        found.held_out,
        f"{found.cost.name}: mean error {100 * found.errors['all'].mape:.1f} % on held-out batches",
    )
