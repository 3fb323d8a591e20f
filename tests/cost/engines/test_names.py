"""Names of engines: taken apart, put together, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from infermax_gym.cost.engines import EngineName, EngineNameError, engines, find_engine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("qwen3-32b@h100x2", EngineName("qwen3-32b", "h100", 2, kv_is_given=False)),
        ("Qwen3-32B@H100x2/vLLM/bf16", EngineName("qwen3-32b", "h100", 2, kv_is_given=False)),
        ("qwen3-8b@rtx-pro-6000", EngineName("qwen3-8b", "rtx-pro-6000", 1, kv_is_given=False)),
        ("m@h200x8/fp8/sglang", EngineName("m", "h200", 8, "sglang", "fp8", "fp8", False)),
        ("m@h200/fp8-kv-bf16", EngineName("m", "h200", 1, "vllm", "fp8", "bf16", True)),
        ("m@b200/nvfp4", EngineName("m", "b200", 1, "vllm", "nvfp4", "fp8", False)),
        ("gpt-oss-20b@h100/trtllm", EngineName("gpt-oss-20b", "h100", 1, "trtllm", "mxfp4", "bf16", False)),
    ],
)
def test_parts_of_a_name(text: str, expected: EngineName) -> None:
    assert EngineName.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("qwen3-8b@h100x1/vllm/bf16", "qwen3-8b@h100"),
        ("qwen3-8b@h100/fp8/sglang", "qwen3-8b@h100/sglang/fp8"),
        ("qwen3-8b@h100/fp8-kv-fp8", "qwen3-8b@h100/fp8"),
        ("gpt-oss-120b@h100x2/mxfp4", "gpt-oss-120b@h100x2"),
        ("gpt-oss-120b@h100x2/bf16", "gpt-oss-120b@h100x2/bf16"),
    ],
)
def test_the_shortest_name(text: str, shortest: str) -> None:
    assert str(EngineName.parse(text)) == shortest


def test_every_name_in_the_table_is_its_own_shortest() -> None:
    for name in engines():
        assert str(EngineName.parse(name)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qwen3-32b", "is not MODEL@GPU"),
        ("@h100", "is not MODEL@GPU"),
        ("qwen3-32b@", "is not MODEL@GPU"),
        ("qwen3-32b@h100/fp9", "cannot read 'fp9'"),
        ("qwen3-32b@h100/vllm/sglang", "cannot read 'sglang'; expected at most one of vllm, sglang, trtllm"),
        ("qwen3-32b@h100/fp8/bf16", "cannot read 'bf16'"),
        ("qwen-32b@h100", "did you mean model 'qwen3-32b'?"),
        ("qwen3-32b@h10", "did you mean GPU 'h100'?"),
        ("qwen3-32b@h100x16", "did you mean 'qwen3-32b@h100x"),
        ("gpt-oss-20b@a100", "gpt-oss-20b is there on b200, h100"),
    ],
)
def test_wrong_names_are_answered_in_one_line(text: str, message: str) -> None:
    with pytest.raises(EngineNameError) as raised:
        find_engine(text)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_the_only_kv_dtype_goes_without_saying() -> None:
    assert find_engine("llama-3.1-70b@h100x4/sglang/fp8").kv_dtype == "bf16"
    with pytest.raises(EngineNameError):
        find_engine("llama-3.1-70b@h100x4/sglang/fp8-kv-fp8")
