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

    console = output.console()
    lines = [_cells(one) for one in found]
    measured = any(line["silicon"] for line in lines)
    names, left_out = _fitting(lines, console.width, () if measured else ("silicon",))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name == "name" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(line[name] for name in names))
    console.print(table)
    notes = {
        f"{_DECODES} decodes": f"Decodes are behind {_CONTEXT:,} tokens.",
        "prefill 2k": f"The prompt has {_PROMPT:,} tokens.",
        "fit error": "Fit error: mean on held-out batches.",
        "silicon": "Silicon: median error of TPOT against real engines.",
    }
    shown = " ".join(note for name, note in notes.items() if name in names)
    console.print(f"{len(found)} engines. {shown}")
    if left_out:
        console.print(f"Left out, too wide for this output: {', '.join(left_out)}; --json has everything.")


_FIRST_LEFT_OUT = ("silicon", "fit error", "budget", "prefill 2k")
_GAP = 3  # between columns


def _cells(one: Engine) -> dict[str, str]:
    """What is shown of an engine, by column."""
    decode_s, prefill_s = _steps(one)
    price, silicon = _price(one), one.silicon
    return {
        "name": one.name,
        "KV tokens": f"{one.num_kv_tokens:,}",
        "budget": f"{one.max_num_batched_tokens:,}",
        f"{_DECODES} decodes": f"{1e3 * decode_s:.1f} ms",
        "prefill 2k": f"{1e3 * prefill_s:.0f} ms",
        "USD/h": "" if price is None else f"{price:.2f}",
        "fit error": f"{100 * one.errors['all'].mape:.1f} %",
        "silicon": "" if silicon is None else f"{100 * silicon.tpot_median:.0f} %",
    }


def _fitting(lines: list[dict[str, str]], width: int, never: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The columns that fit, and those that do not, of which those that say least go first."""
    names = [name for name in lines[0] if name not in never]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}
    left_out: list[str] = []
    for name in _FIRST_LEFT_OUT:
        if sum(widths[kept] + _GAP for kept in names) - _GAP <= width:
            break
        if name in names:
            names.remove(name)
            left_out.append(name)
    return names, left_out


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
