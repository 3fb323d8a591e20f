"""The page itself, in a browser: it shows what it should, sorts, and asks nobody for anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.viewer.comparison import comparison_page
from infermax_gym.viewer.folder import FolderError, page_of
from infermax_gym.viewer.page import render, standalone

HOSTILE = "</script><script>document.title='x'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>'\"&\u202e\x00"


def figures(mean_s: float, **more: Any) -> dict[str, Any]:
    times = {"mean": mean_s, "p50": mean_s, "p90": 2 * mean_s, "p99": 3 * mean_s, "max": 4 * mean_s}
    return {
        "information": "none",
        "num_requests": 9,
        "num_finished": 9,
        "num_rejected": 0,
        "num_preemptions": 2,
        "goodput_per_s": 1.0 / mean_s,
        "gpu_cost_usd": 0.2 * mean_s,
        "latency_s": times,
        "ttft_s": times,
        "tpot_s": {name: value / 100.0 for name, value in times.items()},
        **more,
    }


def timeline() -> dict[str, Any]:
    return {
        "time_s": [0.0, 1.0, 2.0],
        "num_waiting": [3, 1, 0],
        "num_prefills": [1, 1, 0],
        "num_decodes": [0, 4, 2],
        "kv_use": [0.1, 1.0, 0.4],
        "num_preemptions": [0, 2, 0],
    }


def document(*names: str) -> dict[str, Any]:
    config = {"workload": HOSTILE, "cost": "c", "kv_tokens": 100, "block_size": 16, "num_requests": 9}
    config |= {"max_num_batched_tokens": 512, "max_num_seqs": 64, "slo": {"ttft": 2.0}}
    policies = {name: figures(2.0 + k, num_preemptions=7 - k) for k, name in enumerate(names)}
    return {"schema": 1, "config": config, "policies": policies, "bounds": {"latency_s": 1.0, "makespan_s": 5.0}}


def details(*names: str) -> dict[str, Any]:
    shares = [0.0, 0.5, 0.9, 0.99]
    times = {path: [0.5, 1.0, 4.0, 9.0] for path in ("latency_s", "ttft_s", "tpot_s")}
    one = {"distributions": times, "timeline": timeline()}
    return {"schema": 1, "shares": shares, "policies": {name: one for name in names}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_in_a_browser(browser: Any, tmp_path: Path) -> None:
    names = ("vllm", HOSTILE, "srf")
    file = tmp_path / "report.html"
    file.write_text(render(comparison_page(document(*names), details(*names)), HOSTILE), "utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    first = "tbody tr:first-child td:first-child"
    preemptions = page.locator("th button", has_text="Preemptions")
    assert page.inner_text(first) == "vllm"
    preemptions.click()
    assert page.inner_text(first) == "srf"
    preemptions.click()
    assert page.inner_text(first) == "vllm"
    chart = page.locator("svg[data-hover]").first
    chart.scroll_into_view_if_needed()
    chart.hover()
    assert "vllm" in page.inner_text("#tip") and page.locator("#tip").is_visible()
    page.locator("[data-chip='0']").click()
    assert page.locator("figure[data-p='0']").is_hidden() and page.locator("figure[data-p='2']").is_visible()
    with page.expect_download() as saved:
        page.locator("figure[data-p='2'] [data-save='png']").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
    assert page.title() == HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out on a phone
    assert said == [] and set(asked) == {file.as_uri()} | {url for url in asked if url.startswith(("data:", "blob:"))}


def test_names_are_only_text() -> None:
    names = ("vllm", HOSTILE)
    page = comparison_page(document(*names), details(*names))
    text = render(page)
    assert text.count("<script>") == 1 and text.count("</script>") == 1 and "<img" not in text
    for picture in (picture for section in page.sections for picture in section.pictures):
        assert "<script" not in standalone(picture) and "data-hover" not in standalone(picture)


def test_says_who_is_best_and_what_nobody_can_beat() -> None:
    page = comparison_page(document("mine", "vllm", "sglang-fcfs"))
    assert page.answer[0] == (
        "mine answers fastest: 2.00 s from arrival to last token on average, 33 % less than the best of today's "
        "defaults, vLLM's (3.00 s)."
    )
    assert "below 1.00 s" in page.answer[-1]
    marked = [row[0].text for row in page.sections[0].tables[0].rows if row[2].is_best]
    assert marked == ["mine"]


def test_learning_curves_are_drawn() -> None:
    page = comparison_page(document("mine"), curve="step,elapsed_s,loss\n1,1.0,3.5\n2,2.0,1.5\n")
    (section,) = (section for section in page.sections if section.title == "Learning")
    assert section.note == "2 steps in 0.0 minutes; the last loss is 1.50." and len(section.pictures) == 1


def test_of_capacities(tmp_path: Path) -> None:
    config = {"workload": "w", "requests_per_replica": 50, "cost": "c", "kv_tokens": 100, "block_size": 16, "seeds": 2}
    config |= {"max_num_batched_tokens": 512, "max_num_seqs": 64, "slo": {"ttft": 2.0}, "attainment": 0.9}

    def fleet(policy: str, count: int, rate: float) -> dict[str, Any]:
        names = {"policy": policy, "cost": "c", "router": "r", "num_replicas": count, "cost_usd_per_h": 3.0 * count}
        return {**names, "rate_per_s": rate, "ci95_per_s": 0.5, "rate_per_replica_per_s": rate / count}

    fleets = [fleet("vllm", 1, 4.0), fleet("srf", 1, 6.0), fleet("vllm", 2, 8.0), fleet("srf", 2, 11.0)]
    (tmp_path / "capacity.json").write_text(json.dumps({"schema": 1, "config": config, "capacity": fleets}))
    title, page = page_of(tmp_path)
    assert title == "infermax capacity"
    assert (
        page.answer[0] == "srf carries the most on a replica of c: 6.00 requests per s, 50 % more than vLLM's (4.00)."
    )
    assert [p.title for p in page.sections[-1].pictures] == ["Capacity", "Cost against capacity"]


def test_of_tuning(tmp_path: Path) -> None:
    config = {**document("a")["config"], "figure": "goodput_per_s", "better": "high"}
    part = {"figures": figures(2.0), "ci95": {"goodput_per_s": 0.1}, "information": "none"}
    tried = {
        "id": 1,
        "kind": "flags",
        "name": "--max-num-seqs 8",
        "values": [1.0, None],
        "figures": None,
        "held_out": None,
    }
    found = {
        "schema": 1,
        "config": config,
        "today": {"flags": {}, **part},
        "flags": {"flags": {}, "recommended": True, **part, "figures": figures(1.0)},
        "policy": {"name": HOSTILE, **part},
        "bound": 3.0,
        "answer": ["Today's defaults give x.", "The best flags give y."],
        "commands": ["vllm serve <model>"],
        "candidates": [tried],
        "rungs": [{"num_windows": 1, "tried": [0, 1], "kept": [0]}],
    }
    (tmp_path / "tune.json").write_text(json.dumps(found))
    title, page = page_of(tmp_path)
    text = render(page, title)
    assert page.answer[0] == "The best flags give y." and "vllm serve &lt;model&gt;" in text
    assert "nobody can do better" in text and "--max-num-seqs 8" in text


def test_of_tuning_on_more_hardware(tmp_path: Path) -> None:
    part = {"figures": figures(2.0), "ci95": {}, "information": "none"}
    costs: dict[str, Any] = {
        "rate_per_s": 9.0,
        "usd_per_h": 6.4,
        "replicas": 2,
        "fleet_usd_per_h": 12.8,
        "commands": [],
    }
    cheap = {"engine": "m@b200", "flags": {"--max-num-seqs": 8}, "usd_per_million_tokens": 0.25, "ci95": 0.01, **costs}
    dear = {"engine": "m@h100x2", "flags": {}, "usd_per_million_tokens": 0.75, "ci95": None, **costs}
    none = {"engine": "m@l40s", "flags": {}, **dict.fromkeys((*costs, "usd_per_million_tokens", "ci95"))}
    config = {**document("a")["config"], "figure": "goodput_per_s", "better": "high"}
    found = {"schema": 1, "config": config, "today": part, "flags": {"recommended": True, **part}, "bound": None}
    found |= {"answer": ["Yes."], "commands": [], "hardware": [none, dear, cheap, none]}
    (tmp_path / "tune.json").write_text(json.dumps(found))
    title, page = page_of(tmp_path)
    (section,) = (each for each in page.sections if each.title == "Hardware")
    names = [row[0].text for row in section.tables[0].rows]
    assert names == ["m@b200", "m@h100x2", "m@l40s", "m@l40s"]
    assert section.pictures[0].svg.count('class="bar') == 2 and "0.250 ± 0.0100 USD" in section.pictures[0].svg
    assert "--max-num-seqs 8" in render(page, title)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "policies": {"a": {}}, "config": {}}'])
def test_a_bad_folder_gets_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(FolderError):
        page_of(tmp_path)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(FolderError, match=r"summary\.json"):
        page_of(tmp_path)
