"""Which trace formats there are, and which one a header belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infermax_gym.workload.columns import LIMIT, REAL, TIMESTAMP, WHOLE, Kind, shorten
from infermax_gym.workload.workload import WorkloadError


@dataclass(frozen=True)
class Format:
    """A trace format.

    Attributes:
        name: short name, recorded in a workload's metadata.
        title: what people call it.
        prompt: column (or JSON field) of the prompt tokens.
        output: column of the output tokens.
        arrival: names the arrival column may have; none if the format holds lengths only.
        arrival_kind: what arrival cells hold.
        ticks_per_s: arrival units per second.
        drops_empty: rows with no prompt or no output tokens are failed requests: they are dropped and counted.
            Elsewhere such a row is an error.
        optional: further columns to keep, by the name of the `Workload` field.
        names: further columns that hold names (tenants, SLO classes).
        labels: column by which a selection chooses rows, by the selection's name for it (`model`, `log_type`).
        prefix_block_size: tokens per hash of the field `hash_ids`; 0 if the format has no hashes, or says by itself.
        told_by: how it is told from formats with the same fields.
    """

    name: str
    title: str
    prompt: str
    output: str
    arrival: tuple[str, ...] = ()
    arrival_kind: Kind = REAL
    ticks_per_s: float = 1.0
    drops_empty: bool = False
    optional: dict[str, Kind] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    prefix_block_size: int = 0
    told_by: str = ""

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Required columns (lower case compared) that a header lacks, spelt as the format spells them."""
        lacks_arrival = bool(self.arrival) and not any(name.lower() in columns for name in self.arrival)
        missing = [self.arrival[0]] if lacks_arrival else []
        return missing + [name for name in (self.prompt, self.output) if name.lower() not in columns]

    @property
    def required(self) -> str:
        """The required columns as a header line."""
        arrival = ("|".join(self.arrival),) if self.arrival else ()
        return ",".join((*arrival, self.prompt, self.output))


OWN = Format(
    name="infermax_gym",
    title="own CSV",
    arrival=("arrival_s",),
    prompt="num_prompt_tokens",
    output="num_output_tokens",
    optional={"priority": WHOLE, "session": WHOLE, "turn": WHOLE, "ttft_slo_s": LIMIT, "tpot_slo_s": LIMIT},
    names=("tenant", "slo_class"),
)
AZURE = Format(
    name="azure",
    title="Azure CSV",
    arrival=("TIMESTAMP",),
    prompt="ContextTokens",
    output="GeneratedTokens",
    arrival_kind=TIMESTAMP,
    ticks_per_s=1e9,
    drops_empty=True,
)
BURSTGPT = Format(
    name="burstgpt",
    title="BurstGPT CSV",
    arrival=("Timestamp",),
    prompt="Request tokens",
    output="Response tokens",
    drops_empty=True,
    labels={"model": "Model", "log_type": "Log Type"},
)
VIDUR = Format(
    name="vidur",
    title="Vidur CSV",
    arrival=("arrived_at", "arrival_time"),
    prompt="num_prefill_tokens",
    output="num_decode_tokens",
)
SPLITWISE = Format(
    name="splitwise",
    title="Splitwise CSV",
    arrival=("arrival_timestamp",),
    prompt="prompt_size",
    output="token_size",
)
LENGTHS = Format(name="lengths", title="length-only CSV", prompt="num_prefill_tokens", output="num_decode_tokens")
CSV_FORMATS = (OWN, AZURE, BURSTGPT, VIDUR, SPLITWISE, LENGTHS)
"""CSV formats, in the order in which a header is compared with them."""

MOONCAKE = Format(
    name="mooncake",
    title="Mooncake JSONL",
    arrival=("timestamp",),
    prompt="input_length",
    output="output_length",
    ticks_per_s=1e3,
    drops_empty=True,
    prefix_block_size=512,
    told_by="milliseconds, no chat_id",
)
BAILIAN = Format(
    name="qwen-bailian",
    title="Qwen-Bailian JSONL",
    arrival=("timestamp",),
    prompt="input_length",
    output="output_length",
    drops_empty=True,
    labels={"log_type": "type"},
    prefix_block_size=16,
    told_by="seconds, chat_id",
)
HASHED_FORMATS = (MOONCAKE, BAILIAN)
"""Formats with a field `hash_ids`."""
LLMSERVINGSIM = Format(
    name="llmservingsim",
    title="LLMServingSim JSONL",
    arrival=("arrival_time_ns",),
    prompt="input_toks",
    output="output_toks",
    arrival_kind=WHOLE,
    ticks_per_s=1e9,
)
VLLM = Format(
    name="vllm-bench",
    title="vllm bench serve JSON",
    arrival=("start_times",),
    prompt="input_lens",
    output="output_lens",
    drops_empty=True,
)
JSON_FORMATS = (
    LLMSERVINGSIM,
    Format("infermax_gym-json", "own JSON", "num_prompt_tokens", "num_output_tokens", ("arrival_s",)),
    Format("vidur-json", "Vidur JSON", "num_prefill_tokens", "num_decode_tokens", ("arrived_at", "arrival_time")),
)
"""Formats of JSON objects with arrivals, besides those with hashes."""
JSON_LENGTHS = tuple(
    Format("lengths-json", "JSON of lengths", prompt, output)
    for prompt, output in (
        ("input_length", "output_length"),
        ("input_toks", "output_toks"),
        ("num_prompt_tokens", "num_output_tokens"),
        ("num_prefill_tokens", "num_decode_tokens"),
        ("prompt_len", "output_len"),
        ("input_len", "output_len"),
        ("prompt_tokens", "completion_tokens"),
    )
)
"""JSON objects of lengths alone."""
_ARRIVALS = ("timestamp", "arrival_timestamp", *(name for each in JSON_FORMATS for name in each.arrival))
_TEXTS = ("conversations", "conversation", "messages", "prompt", "instruction", "text", "content")


def detect_csv(header: Sequence[str], where: str) -> Format:
    """The format of a header.

    Args:
        header: names of the columns, lower case.
        where: file and line, for the error.

    Raises:
        WorkloadError: no format has these columns, one that nearly does lacks some, or a column is named twice.
    """
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise WorkloadError(f"{where}: column {twice[0]!r} is named twice")
    for candidate in CSV_FORMATS:
        if not candidate.missing(header):
            return candidate
    nearest = min(CSV_FORMATS, key=lambda candidate: len(candidate.missing(header)))
    missing = nearest.missing(header)
    if len(missing) == 1:
        raise WorkloadError(f"{where}: column {missing[0]} is missing; {nearest.title} needs {nearest.required}")
    raise unknown_format(where, ",".join(header))


def detect_json(record: Mapping[str, Any], where: str) -> Format:
    """The format of a JSON object that stands for one request.

    Raises:
        WorkloadError: no format has these fields.
    """
    hashed = sum(name in record for name in (*MOONCAKE.arrival, MOONCAKE.prompt, MOONCAKE.output))
    if hashed >= 2 and any(name in record for name in ("chat_id", "parent_chat_id", "turn")):
        return BAILIAN
    if hashed >= 2 and ("timestamp" in record or "hash_ids" in record):
        return MOONCAKE
    for candidate in JSON_FORMATS:
        if any(name in record for name in candidate.arrival) and (
            candidate.prompt in record or candidate.output in record
        ):
            return candidate
    if not any(name in record for name in _ARRIVALS):
        for candidate in JSON_LENGTHS:
            if candidate.prompt in record and candidate.output in record:
                return candidate
    if any(name in record for name in _TEXTS):
        pairs = " or ".join(f"{each.prompt}, {each.output}" for each in JSON_LENGTHS[-3:])
        raise WorkloadError(
            f"{where}: holds texts and no token counts; count them with the model's tokenizer first and write {pairs}"
        )
    raise unknown_format(where, json.dumps(record))


def unknown_format(where: str, line: str) -> WorkloadError:
    """The error that lists what is known."""
    known = "; ".join(f"{known.title} {known.required}" for known in CSV_FORMATS)
    known += "".join(f"; {each.title} {each.required},hash_ids" for each in HASHED_FORMATS)
    known += "".join(f"; {each.title} {each.required}" for each in (*JSON_FORMATS, VLLM, JSON_LENGTHS[0]))
    return WorkloadError(f"{where}: unknown trace format, it begins with {shorten(line)}; known are {known}")
