"""How `infermax list costs` shows the table of engines: a summary, or the engines of a model or a GPU."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.cost.engines import Engine

_DECODES, _CONTEXT, _PROMPT = 32, 1_000, 2_048


def chosen(model: str | None, gpu: str | None) -> list[Engine]:
    """The engines of a model and a GPU; all of them where neither is given.

    Raises:
        InputError: no engine has this model or this GPU.
    """
    from infermax_gym.cost.engines import engines

    found = list(engines().values())
    for option, attribute, value in (("--model", "model", model), ("--gpu", "gpu", gpu)):
        if value is None:
            continue
        known = sorted({str(getattr(one, attribute)) for one in found})
        if value.lower() not in known:
            close = get_close_matches(value.lower(), known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            raise InputError(f"{option} {value!r} has no engine here; {hint}")
        found = [one for one in found if getattr(one, attribute) == value.lower()]
    return found


def document(one: Engine) -> dict[str, Any]:
    """An engine for `--json`."""
    return {
        "name": one.name,
        "num_devices": one.tensor_parallel,
        "model": one.model,
        "gpu": one.gpu,
        "backend": f"{one.backend} {one.version}",
        "weights_dtype": one.weights_dtype,
        "kv_dtype": one.kv_dtype,
        **one.sizes,
        "is_convex": not one.min_terms,
        "usd_per_hour": _price(one),
        "errors": {region: {"mape": error.mape, "p95": error.p95} for region, error in one.errors.items()},
        "silicon": None if one.silicon is None else vars(one.silicon),
        "source": f"aiconfigurator-core 0.12.0, {one.backend} {one.version}",
    }


def print_engines(found: list[Engine]) -> None:
    """A line for each engine: what it resolves to, a few steps, its price and its errors."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("name", no_wrap=True)
    measured = any(one.silicon is not None for one in found)
    headings = ("KV tokens", "budget", "seqs", f"{_DECODES} decodes", "prefill 2k", "USD/h", "fit error")
    for heading in (*headings, "silicon TPOT") if measured else headings:
        table.add_column(heading, justify="right", no_wrap=heading != "silicon TPOT")
    for one in found:
        decode_s, prefill_s = _steps(one)
        price, silicon = _price(one), one.silicon
        shown = [
            one.name,
            f"{one.num_kv_tokens:,}",
            f"{one.max_num_batched_tokens:,}",
            f"{one.max_num_seqs:,}",
            f"{1e3 * decode_s:.1f} ms",
            f"{1e3 * prefill_s:.0f} ms",
            "" if price is None else f"{price:.2f}",
            f"{100 * one.errors['all'].mape:.1f} %",
        ]
        if measured:
            shown.append("" if silicon is None else f"{100 * silicon.tpot_median:.0f} % of {silicon.num_rows}")
        table.add_row(*shown)
    console = output.console()
    console.print(table)
    last = " Silicon: median error against real engines." if measured else ""
    console.print(
        f"{len(found)} engines. Steps: {_DECODES} decodes behind {_CONTEXT:,} tokens; a prompt of {_PROMPT:,}.\n"
        f"Fit error: mean on held-out batches.{last}"
    )


def print_summary(found: list[Engine]) -> None:
    """How many engines there are for each model and GPU."""
    from rich import box
    from rich.table import Table

    counts = Counter((one.model, one.gpu) for one in found)
    models, gpus = (list(dict.fromkeys(names)) for names in zip(*counts, strict=True))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("engines of", no_wrap=True)
    for gpu in gpus:
        table.add_column(gpu, justify="right")
    for model in models:
        table.add_row(model, *(str(counts[model, gpu] or "") for gpu in gpus))
    console = output.console()
    console.print(table)
    console.print(
        "`infermax list costs --model NAME` shows their names, such as qwen3-32b@h100x2; `--gpu NAME` chooses, too"
    )


def _price(one: Engine) -> float | None:
    return None if one.price_usd_per_gpu_hour is None else one.tensor_parallel * one.price_usd_per_gpu_hour


def _steps(one: Engine) -> tuple[float, float]:
    """Seconds of some decodes, and of a prompt."""
    import numpy as np

    from infermax_gym.cost.pieces import seconds_of

    decode = (1, _DECODES, 0, 0, 0, 0, 1, _DECODES * _CONTEXT, _DECODES)
    prefill = (1, _PROMPT, 1, _PROMPT**2, 1, 0, 0, 0, 0)
    both = seconds_of(one.cost, np.array([decode, prefill], np.float64))
    return float(both[0]), float(both[1])
