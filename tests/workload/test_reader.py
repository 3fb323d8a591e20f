"""Every format that is read, and what the options do to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.workload import Poisson, WorkloadError, read_workload
from infermax_gym.workload.blocks import NUM_ROWS_PER_BLOCK
from infermax_gym.workload.reader import workload_stream
from tests.shared import SHARED, needs_shared

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00+00:00,2399,6
"""
VIDUR = """\
arrived_at,num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio
10.5,374,44,418,8.5
11,396,109,505,3.6
"""
LENGTHS = "num_prefill_tokens,num_decode_tokens,pd_ratio\n3772,54,69.85\n2015,156,12.9\n3858,133,29.0\n"
BURSTGPT = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,a,1.0,ChatGPT,472,18,490,Conversation log
45,b,1.0,ChatGPT,1087,0,1087,Conversation log
118,,1.0,GPT-4,417,276,693,API log
"""
MOONCAKE = """\
{"timestamp": 27000, "input_length": 1200, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 27500.5, "input_length": 100, "output_length": 26, "hash_ids": []}
{"timestamp": 30000, "input_length": 600, "output_length": 3, "hash_ids": [46, 9]}
"""
OWN = """\
arrival_s,num_prompt_tokens,num_output_tokens,tenant,slo_class,priority
2.5,10,1,zoe,2,-3
2.5,20,2,adam,10,0
4.0,30,3,,2,7
"""


@pytest.fixture
def write(tmp_path):
    def put(text: str | bytes, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put


def test_azure(write):
    workload = read_workload(write(AZURE))
    assert workload.arrival_s.tolist() == [0.0, 4.314579, 4.541877]
    assert workload.num_prompt_tokens.tolist() == [374, 396, 879]
    assert workload.num_output_tokens.tolist() == [44, 109, 55]
    assert (workload.name, workload.metadata["format"]) == ("trace", "azure")
    assert (workload.tenant_names, workload.slo_class_names) == (("default",), ("default",))


@pytest.mark.parametrize("suffix", ["+00:00", "Z", ""])
def test_azure_2024_times(write, suffix):
    text = AZURE_2024.replace(".009930+00:00", "+00:00").replace("00:00:00+00:00,2399", "00:00:00.25+00:00,2399")
    assert read_workload(write(text.replace("+00:00", suffix))).arrival_s.tolist() == [0.0, 0.25]


@pytest.mark.parametrize("column", ["arrived_at", "arrival_time"])
def test_vidur(write, column):
    workload = read_workload(write(VIDUR.replace("arrived_at", column)))
    assert workload.arrival_s.tolist() == [0.0, 0.5]
    assert workload.num_output_tokens.tolist() == [44, 109]
    assert workload.metadata["format"] == "vidur"


def test_lengths_arrive_as_a_poisson_process_of_the_seed(write):
    path = write(LENGTHS)
    workload = read_workload(path, rate=4.0, seed=3)
    assert workload.num_prompt_tokens.tolist() == [3772, 2015, 3858]
    assert workload.arrival_s.tolist() == Poisson(4.0).sample(workload_stream(3), 3).tolist()
    assert read_workload(path, rate=4.0, seed=4).arrival_s.tolist() != workload.arrival_s.tolist()
    with pytest.raises(WorkloadError) as error:
        read_workload(path)
    assert str(error.value) == (
        f"{path}: holds lengths but no arrival times; give a rate in requests per second (--rate)"
    )


def test_burstgpt_drops_and_counts_failures(write):
    workload = read_workload(write(BURSTGPT))
    assert workload.arrival_s.tolist() == [0.0, 113.0]
    assert workload.num_prompt_tokens.tolist() == [472, 417]
    assert workload.metadata["num_dropped"] == 1


@pytest.mark.parametrize(("counts", "num_left"), [("374,0", 2), ("0,44", 2), ("0,0", 2)])
def test_rows_of_production_traces_without_tokens_are_dropped(write, counts, num_left):
    workload = read_workload(write(AZURE.replace("374,44", counts)))
    assert len(workload) == num_left
    assert workload.arrival_s[0] == 0.0
    assert workload.metadata["num_dropped"] == 1


def test_mooncake(write):
    workload = read_workload(write(MOONCAKE, "trace.jsonl"))
    assert workload.arrival_s.tolist() == [0.0, 0.5005, 3.0]
    assert workload.num_prompt_tokens.tolist() == [1200, 100, 600]
    assert workload.prefix_block_size == 512
    assert workload.prefix_blocks.tolist() == [46, 47, 48, 46, 9]
    assert workload.prefix_start.tolist() == [0, 3, 3, 5]


def test_mooncake_keeps_prefixes_with_their_requests(write):
    path = write(MOONCAKE.replace('"output_length": 26', '"output_length": 0'))
    workload = read_workload(path, first=2)
    assert workload.prefix_blocks.tolist() == [46, 47, 48, 46, 9]
    assert workload.prefix_start.tolist() == [0, 3, 5]
    assert read_workload(path, skip=1).prefix_blocks.tolist() == [46, 9]


def test_own(write):
    workload = read_workload(write(OWN))
    assert workload.arrival_s.tolist() == [0.0, 0.0, 1.5]
    assert workload.tenant_names == ("adam", "default", "zoe")
    assert workload.tenant.tolist() == [2, 0, 1]
    assert workload.slo_class_names == ("2", "10")  # numbers by value
    assert workload.slo_class.tolist() == [0, 1, 0]
    assert workload.priority.tolist() == [-3, 0, 7]


def test_own_limits_and_prefixes(write):
    text = "num_output_tokens,ttft_slo_s,prefix_blocks_16,arrival_s,num_prompt_tokens\n1,0.5,7 8,0,20\n1,,,0,5\n"
    workload = read_workload(write(text))
    assert workload.ttft_slo_s.tolist() == [0.5, np.inf]
    assert workload.prefix_block_size == 16
    assert workload.prefix_start.tolist() == [0, 2, 2]


ALL = [AZURE, VIDUR, BURSTGPT, MOONCAKE, OWN]


@pytest.mark.parametrize("text", ALL, ids=["azure", "vidur", "burstgpt", "mooncake", "own"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text + "\n \n\r\n",
        lambda text: "\n" + text.replace("\n", "\n\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(",", " , "),
        lambda text: text.replace("TIMESTAMP", "timestamp").replace("arrival_s", "Arrival_S"),
    ],
    ids=["crlf", "cr", "bom", "trailing blanks", "blank lines", "no last line end", "spaces", "case"],
)
def test_harmless_variants_read_the_same(write, text, change):
    plain, variant = read_workload(write(text)), read_workload(write(change(text)))
    assert variant.arrival_s.tobytes() == plain.arrival_s.tobytes()
    assert variant.num_prompt_tokens.tobytes() == plain.num_prompt_tokens.tobytes()
    assert variant.tenant_names == plain.tenant_names


def test_whole_numbers_may_be_written_as_floats(write):
    workload = read_workload(write(VIDUR.replace(",374,44", ",374.0,+44")))
    assert workload.num_prompt_tokens.tolist() == [374, 396]
    assert workload.num_output_tokens.tolist() == [44, 109]


def test_quoted_cells(write):
    assert read_workload(write(OWN.replace("zoe", '"z,oe ""x"""'))).tenant_names[-1] == 'z,oe "x"'


def test_skip_first_and_scale(write):
    path = write(AZURE)
    workload = read_workload(path, skip=1, first=1)
    assert (workload.num_prompt_tokens.tolist(), workload.arrival_s.tolist()) == ([396], [0.0])
    assert len(read_workload(path, first=99)) == 3
    assert read_workload(path, time_scale=0.5).arrival_s.tolist() == [0.0, 4.314579 / 2, 4.541877 / 2]
    assert read_workload(path, rate=8.0).mean_rate_per_s == pytest.approx(8.0)


def test_skip_and_first_count_served_requests(write):
    workload = read_workload(write(BURSTGPT), skip=1, first=1)
    assert workload.num_prompt_tokens.tolist() == [417]


def test_nothing_after_the_last_row_needed_is_read(write):
    assert len(read_workload(write(AZURE + "garbage\n" * NUM_ROWS_PER_BLOCK), first=3)) == 3


def test_selections_across_blocks(write):
    num_rows = 2 * NUM_ROWS_PER_BLOCK + 5
    rows = "".join(f"{i},{i + 1},{i % 3}\n" for i in range(num_rows))
    path = write("Timestamp,Request tokens,Response tokens\n" + rows)
    served = [i for i in range(num_rows) if i % 3]
    start, count = NUM_ROWS_PER_BLOCK // 2, NUM_ROWS_PER_BLOCK // 2
    workload = read_workload(path, skip=start, first=count)
    assert workload.num_prompt_tokens.tolist() == [i + 1 for i in served[start : start + count]]
    assert read_workload(path).metadata["num_dropped"] == num_rows - len(served)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(AZURE,))
    writer.start()
    assert len(read_workload(pipe)) == 3
    writer.join()


def test_reading_needs_neither_pandas_nor_pyarrow(write):
    code = (
        "import sys; from infermax_gym.workload import read_workload; read_workload(sys.argv[1]);"
        "print(sorted({'pandas', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-c", code, str(write(AZURE))]
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=root).stdout.strip() == "[]"


@needs_shared
@pytest.mark.parametrize(
    ("name", "num_rows", "options"),
    [
        ("azure2023_conv_head.csv", 12_000, {}),
        ("azure2023_code_head.csv", 5_500, {}),
        ("mooncake_conversation_head.jsonl", 4_000, {}),
        ("arxiv_summarization_head.csv", 2_000, {"rate": 1.0}),
    ],
)
def test_public_traces(name, num_rows, options):
    assert SHARED is not None
    workload = read_workload(SHARED / "data" / name, **options)
    assert len(workload) == num_rows
    assert workload.metadata["num_dropped"] == 0


@needs_shared
def test_mooncake_against_the_json_module():
    assert SHARED is not None
    path = SHARED / "data" / "mooncake_conversation_head.jsonl"
    workload = read_workload(path, skip=100, first=500)
    records = [json.loads(line) for line in path.read_text().splitlines()[100:600]]
    assert workload.num_prompt_tokens.tolist() == [record["input_length"] for record in records]
    for request, record in enumerate(records):
        edges = workload.prefix_start[request : request + 2]
        assert workload.prefix_blocks[edges[0] : edges[1]].tolist() == record["hash_ids"]


@needs_shared
@pytest.mark.parametrize("scale", ["0.25", "1.0"])
def test_arrivals_equal_those_of_another_simulator_to_the_bit(scale):
    assert SHARED is not None
    theirs = read_workload(next((SHARED / "oracles" / "infermax").glob(f"*conv_600_x{scale}__*sarathi*/requests.csv")))
    path = SHARED / "data" / "azure2023_conv_head.csv"
    ours = read_workload(path, first=600, time_scale=float(scale))
    assert ours.arrival_s.tobytes() == theirs.arrival_s.tobytes()
