"""A cost for people: its coefficients, its memory, and a bar for each part of an iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infermax_gym.cli import output

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from infermax_gym.cost import CostModel
    from infermax_gym.cost.engines import Engine
    from infermax_gym.cost.roofline import Batch, Roofline

_BAR_WIDTHS = (8, 44)
_OTHER_COLUMNS = 74
_COLORS = {
    "weights": "blue",
    "GEMM": "red",
    "attention": "magenta",
    "activations": "cyan",
    "all-reduce": "yellow",
    "floors": "bright_black",
}
_LETTERS = {
    "weights": "w",
    "GEMM": "G",
    "attention": "a",
    "activations": "v",
    "all-reduce": "r",
    "floors": "f",
}


def show_known(model: CostModel) -> None:
    """A cost that comes with the package."""
    devices = f"{model.num_devices} device{'s' if model.num_devices > 1 else ''}"
    output.console().print(f"{model.name}: {devices}\n{model.source}", markup=False)
    _show_coefficients(model)


def show(found: Roofline, batches: list[Batch], fitted: Engine | None) -> None:
    """A roofline, and what `--cost` takes for the same name instead."""
    console = output.console()
    memory, sizes = found.memory, found.sizes
    console.print(
        f"{found.name}: roofline, {found.num_devices} x {found.device.name}, {found.weights} weights, {found.kv} KV",
        markup=False,
    )
    console.print(
        f"memory: {memory.total_gib:g} GiB x {sizes.gpu_memory_utilization:g} = weights {memory.weights_gib:.1f} + "
        f"other {memory.other_gib:.1f} + KV {memory.kv_gib:.1f} GiB: {memory.num_kv_tokens:,} KV tokens",
        markup=False,
    )
    console.print(
        f"engine: --kv-tokens {memory.num_kv_tokens} --max-num-batched-tokens {sizes.max_num_batched_tokens} "
        f"--max-num-seqs {sizes.max_num_seqs}",
        markup=False,
    )
    _show_coefficients(found.cost)
    console.print(_batches(found, batches))
    console.print(_legend())
    if found.assumed:
        assumed = "; ".join(f"{name}: {why}" for name, why in found.assumed.items())
        console.print(f"not measured on {found.device.name}: {assumed}", markup=False)
    if fitted is None:
        console.print("to run it: -o cost.json, then --cost cost.json with the engine's options above", markup=False)
    else:
        console.print(
            f"to run it: --cost {fitted.name}, which is fitted to measured operators ({fitted.num_kv_tokens:,} KV "
            "tokens); -o cost.json writes this estimate",
            markup=False,
        )


def _show_coefficients(model: CostModel) -> None:
    """The terms, a line each: what is added up is the largest (or smallest) of their forms."""
    console = output.console()
    console.print("microseconds of an iteration, the sum of", markup=False)
    for word, terms in (("max", model.terms), ("min", model.min_terms)):
        for term in terms:
            forms = [_form(form) for form in term]
            text = forms[0] if len(forms) == 1 else f"{word}({', '.join(forms)})"
            console.print(f"  {text}", markup=False, soft_wrap=True)


def _form(form: tuple[float, ...]) -> str:
    from infermax_gym.cost.features import FEATURE_NAMES

    parts = []
    for name, value in zip(FEATURE_NAMES, form, strict=True):
        if value:
            parts.append(f"{1e6 * value:.4g}" if name == "one" else f"{1e6 * value:.4g} {name}")
    return " + ".join(parts).replace("+ -", "- ") or "0"


def _batches(found: Roofline, batches: list[Batch]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from infermax_gym.cost.roofline import breakdown

    least, most = _BAR_WIDTHS
    width = min(most, max(least, output.console().width - _OTHER_COLUMNS))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("batch", "ms", "tokens/s", "bound by", "where the time goes"):
        right = name in ("ms", "tokens/s")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "batch")
    for batch in batches:
        one = breakdown(found.parts, batch)
        rate = f"{batch.num_tokens / one.seconds:,.0f}"
        table.add_row(Text(_name(batch)), f"{1e3 * one.seconds:.2f}", rate, one.bound, _bar(one.bars, width))
    return table


def _name(batch: Batch) -> str:
    names = []
    if batch.num_prefills:
        names.append(f"prefill of {batch.chunk:,}")
    if batch.num_decodes:
        names.append(f"{batch.num_decodes:,} x decode at {batch.context:,}")
    return " + ".join(names)


def _bar(bars: dict[str, float], most: int) -> Text:
    """A bar of so many characters whose pieces are the parts' shares."""
    from rich.text import Text

    total, bar, done, drawn = sum(bars.values()), Text(), 0.0, 0
    for name, seconds in bars.items():
        done += seconds
        width = round(most * done / total) - drawn
        drawn += width
        bar.append(_LETTERS[name] * width, style=f"{_COLORS[name]} reverse")
    return bar


def _legend() -> Text:
    from rich.text import Text

    legend = Text()
    for name, color in _COLORS.items():
        legend.append(f" {_LETTERS[name]} ", style=f"{color} reverse")
        legend.append(f" {name}  ")
    return legend
