"""Which trace formats there are, and which one a header belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    optional={"priority": WHOLE, "ttft_slo_s": LIMIT, "tpot_slo_s": LIMIT},
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
)
VIDUR = Format(
    name="vidur",
    title="Vidur CSV",
    arrival=("arrived_at", "arrival_time"),
    prompt="num_prefill_tokens",
    output="num_decode_tokens",
)
LENGTHS = Format(name="lengths", title="length-only CSV", prompt="num_prefill_tokens", output="num_decode_tokens")
CSV_FORMATS = (OWN, AZURE, BURSTGPT, VIDUR, LENGTHS)
"""CSV formats, in the order in which a header is compared with them."""

MOONCAKE = Format(
    name="mooncake",
    title="Mooncake JSONL",
    arrival=("timestamp",),
    prompt="input_length",
    output="output_length",
    ticks_per_s=1e3,
    drops_empty=True,
)
MOONCAKE_BLOCK_SIZE = 512
"""Tokens per prefix block in Mooncake's traces."""


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


def unknown_format(where: str, line: str) -> WorkloadError:
    """The error that lists what is known."""
    known = "; ".join(f"{known.title} {known.required}" for known in CSV_FORMATS)
    fields = ",".join((*MOONCAKE.arrival, MOONCAKE.prompt, MOONCAKE.output, "hash_ids"))
    return WorkloadError(
        f"{where}: unknown trace format, the first line is {shorten(line)}; known are {known}; "
        f"{MOONCAKE.title} {fields}"
    )
