"""The table for people: order, marks, widths."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from infermax_gym.evaluation.figures import sorted_names
from infermax_gym.evaluation.report import caption, render_comparison, render_run

CONFIG = {
    "workload": "toy",
    "num_requests": 10,
    "span_s": 5.0,
    "mean_rate_per_s": 1.8,
    "cost": "llama2-7b-a100",
    "kv_tokens": 100_000,
    "block_size": 16,
    "max_num_batched_tokens": 512,
    "max_num_seqs": 256,
    "slo": {"ttft": 2.0},
    "seeds": 3,
}


def figures(latency: float | None, **more: Any) -> dict[str, Any]:
    spread = {"mean": latency, "p50": latency, "p90": latency, "p99": latency, "max": latency}
    return {
        "information": "none",
        "num_requests": 10,
        "num_finished": 10,
        "num_rejected": 0,
        "makespan_s": 12.5,
        "busy_s": 10.0,
        "num_iterations": 300,
        "num_preemptions": 123_456,
        "num_recomputed_tokens": 123_456_789,
        "ttft_s": spread,
        "tpot_s": dict.fromkeys(spread, 0.0251),
        "itl_s": spread,
        "latency_s": spread,
        "throughput_tokens_per_s": 1234.5,
        "throughput_requests_per_s": 2.0,
        "goodput_per_s": 1.5,
        "slo_attainment": 0.75,
        "kv_utilization": 0.5,
        "gpu_cost_usd": None,
        "wall_s": 0.01,
        **more,
    }


def render(policies: dict[str, Any], width: int = 120, **config: Any) -> str:
    console = Console(file=io.StringIO(), width=width)
    render_comparison({"config": {**CONFIG, **config}, "policies": policies}, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return line.split()


def test_rows_come_by_latency_and_the_best_is_marked() -> None:
    text = render({"slow": figures(20.0), "fast": figures(10.0)})
    assert text.index("fast") < text.index("slow")
    assert row(text, "fast")[2:4] == ["10.0*", "10.0*"]
    assert "*" not in "".join(row(text, "slow"))


def test_columns_without_a_difference_have_no_mark() -> None:
    assert row(render({"slow": figures(20.0), "fast": figures(10.0)}), "fast")[6] == "25.1"
    assert "*" not in render({"only": figures(20.0)}).split("* best")[0]


def test_a_policy_that_leaves_requests_out_cannot_win() -> None:
    policies = {"picky": figures(1.0, num_finished=2, num_rejected=8), "whole": figures(10.0), "slow": figures(11.0)}
    assert sorted_names(policies) == ["whole", "slow", "picky"]
    text = render(policies)
    assert "*" not in "".join(row(text, "picky"))
    assert "1 of 3 policies miss up to 8 (8 rejected" in text


def test_missing_figures_are_shown_as_missing() -> None:
    assert row(render({"none": figures(None), "one": figures(1.0)}), "none")[2] == "-"


def test_infinite_figures_are_shown() -> None:
    text = render({"none": figures(float("inf")), "one": figures(1.25)})
    assert row(text, "none")[2] == "inf" and row(text, "one")[2] == "1.25*"


def test_large_counts_are_shortened() -> None:
    text = render({"a": figures(1.0)})
    assert "123k" in text
    assert "123M" in text


def test_intervals_are_shown() -> None:
    ci95 = {"latency_s": {"mean": 0.52}, "ttft_s": {"mean": 0.5}, "tpot_s": {"mean": 0.001}}
    versus = {"policy": "a", "latency_ratio": 1.0, "ci95": [1.0, 1.0]}
    worse = {"policy": "a", "latency_ratio": 1.2, "ci95": [1.05, 1.37]}
    text = render({"a": figures(10.0, ci95=ci95, vs_best=versus), "b": figures(12.0, ci95=ci95, vs_best=worse)}, 140)
    assert "10.0±0.5" in text
    assert "1.20 (1.05-1.37)" in text
    assert "3 seeds" in text


@pytest.mark.parametrize("width", [70, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_output(width: int) -> None:
    text = render({"infermax-srf-histogram": figures(1234.5), "b": figures(1.0)}, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    assert ("--json has everything" in " ".join(text.split())) == (width < 110)


def test_no_colour_codes_when_piped() -> None:
    assert "\x1b" not in render({"slow": figures(20.0), "fast": figures(10.0)})


@pytest.mark.parametrize(
    ("span_s", "rate", "words"),
    [
        (0.0123456, 729.0, "10 requests over 0.0123 s (729 per s)"),
        (123456.0, 8.0, "10 requests over 123,456 s (8.00 per s)"),
        (0.0, None, "10 requests, all at once"),
    ],
)
def test_caption_keeps_three_digits(span_s: float, rate: float | None, words: str) -> None:
    document = {"config": {**CONFIG, "span_s": span_s, "mean_rate_per_s": rate}}
    assert words in caption(document)[0]


def test_caption_states_the_scenario() -> None:
    text = render({"a": figures(1.0)})
    assert "toy: 10 requests over 5.00 s (1.80 per s)" in text
    assert "100,000 KV tokens (blocks of 16)" in text
    assert "TTFT <= 2 s" in text


def test_one_run_is_shown_in_full() -> None:
    console = Console(file=io.StringIO(), width=100)
    render_run({"config": CONFIG, "policies": {"fast": figures(10.0)}}, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "fast (lengths known: none)" in text
    assert "iterations                300" in text
    assert "GPU cost" not in text
