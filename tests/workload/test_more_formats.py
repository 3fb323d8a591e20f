"""Traces of other simulators, benchmarks and data sets, compressed or not, and rows chosen by time and name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.workload import WorkloadError, load_workload, make_workload, read_workload, write_workload
from infermax_gym.workload.blocks import NUM_ROWS_PER_BLOCK
from tests.workload.same import assert_same_requests
from tests.workload.test_reader import AZURE, BURSTGPT, LENGTHS, MOONCAKE, OWN, VIDUR

BAILIAN = """\
{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 33, "output_length": 132, "type": "text", \
"turn": 2, "hash_ids": [1089, 1090, 18446744073709551615]}
{"chat_id": 7, "parent_chat_id": -1, "timestamp": 61.5, "input_length": 20, "output_length": 4, "type": "search", \
"turn": 1, "hash_ids": [5, 6]}
{"chat_id": 8, "parent_chat_id": 159, "timestamp": 70, "input_length": 50, "output_length": 5, "type": "text", \
"turn": 3, "hash_ids": [1089, 1090, 18446744073709551615]}
{"chat_id": 9, "parent_chat_id": 7, "timestamp": 70, "input_length": 31, "output_length": 9, "type": "text", \
"turn": 2, "hash_ids": []}
"""
SERVINGSIM = """\
{"input_toks": 128, "output_toks": 32, "arrival_time_ns": 1000000001, "input_tok_ids": [1, 2]}
{"input_toks": 64, "output_toks": 16, "arrival_time_ns": 1500000002}
"""
SPLITWISE = """\
request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size
0,2,0,0.25,1,512,20
1,2,0,0.75,1,100,7
"""
VLLM = {
    "duration": 9.0,
    "completed": 2,
    "total_input_tokens": 60,
    "request_throughput": 0.2,
    "input_lens": [10, 20, 30],
    "output_lens": [5, 0, 7],
    "ttfts": [0.1, 0.0, 0.1],
    "itls": [[0.1], [], [0.1]],
    "start_times": [100.5, 100.0, 100.25],
    "errors": ["", "timeout", ""],
}
SHAREGPT = [{"prompt_len": 17, "output_len": 200}, {"prompt_len": 900, "output_len": 31}]


@pytest.fixture
def write(tmp_path):
    def put(text: str, name: str = "trace.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return put


@pytest.fixture
def complaint(write):
    def read(text: str, **options) -> str:
        path = write(text)
        with pytest.raises(WorkloadError) as error:
            read_workload(path, **options)
        assert "\n" not in str(error.value)
        return str(error.value).removeprefix(str(path))

    return read


def test_qwen_bailian_keeps_seconds_blocks_and_sessions(write):
    workload = read_workload(write(BAILIAN))
    assert workload.metadata["format"] == "qwen-bailian"
    assert workload.arrival_s.tolist() == [0.0, 61.5 - 61.114, 70 - 61.114, 70 - 61.114]
    assert workload.prefix_block_size == 16
    assert workload.prefix_blocks.tolist() == [1089, 1090, -1, 5, 6, 1089, 1090, -1]
    assert workload.session.tolist() == [0, 1, 0, 1]
    assert workload.turn.tolist() == [2, 1, 3, 2]
    assert read_workload(write(BAILIAN), skip=1).session.tolist() == [1, 0, 1]  # as they begin in the file


def test_answers_to_one_chat_before_the_trace_are_one_session(write):
    lines = [
        {"chat_id": c, "parent_chat_id": 55, "timestamp": c, "input_length": 5, "output_length": 5} for c in (1, 2)
    ]
    assert read_workload(write("\n".join(map(json.dumps, lines)))).session.tolist() == [0, 0]


def test_sessions_across_blocks(write):
    count = NUM_ROWS_PER_BLOCK // 8 + 3
    lines = [
        {"chat_id": c, "parent_chat_id": c - 2 if c >= 2 else -1, "timestamp": c, "input_length": 5, "output_length": 5}
        for c in range(count)
    ]
    assert read_workload(write("\n".join(map(json.dumps, lines)))).session.tolist() == [c % 2 for c in range(count)]


@pytest.mark.parametrize("name", ["own.csv", "own.csv.gz"])
def test_sessions_round_trip(tmp_path, write, name):
    workload = read_workload(write(BAILIAN))
    write_workload(workload, tmp_path / "own.csv")
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "own.csv").read_bytes()))
    again = read_workload(tmp_path / name)
    assert again.name == "own"
    assert_same_requests(again, workload)


def test_conversations_say_which_and_which_turn():
    workload = make_workload("conversations", 400, seed=1)
    for session in np.unique(workload.session):
        turns = workload.turn[workload.session == session]
        assert turns.tolist() == list(range(1, len(turns) + 1))
    assert workload.turn.max() > 3


BLOCKS = [
    (
        json.dumps({"timestamp": 61, "input_length": 521, "output_length": 5, "hash_ids": list(range(33))}),
        ":2: has 33 hash_ids for 521 prompt tokens; expected 2, one a block of 512; as many as blocks of 16, see "
        "Qwen-Bailian JSONL: seconds, chat_id",
    ),
    (
        '{"timestamp": 61, "input_length": 1200, "output_length": 5, "hash_ids": [1, 2, 3, 4]}',
        ":2: has 4 hash_ids for 1200 prompt tokens; expected 3, one a block of 512",
    ),
]


@pytest.mark.parametrize(("line", "message"), BLOCKS)
def test_hashes_that_contradict_the_length(complaint, line, message):
    assert complaint(MOONCAKE.splitlines()[0].replace("27000", "27") + "\n" + line + "\n") == message


def test_blocks_of_512_are_not_those_of_qwen_bailian(complaint):
    line = '{"chat_id": 1, "timestamp": 61, "input_length": 521, "output_length": 5, "hash_ids": [1, 2]}'
    assert complaint(line) == (
        ":1: has 2 hash_ids for 521 prompt tokens; expected 33, one a block of 16; as many as blocks of 512, see "
        "Mooncake JSONL: milliseconds, no chat_id"
    )


def test_a_last_block_that_is_not_full_may_be_left_out(write):
    line = '{"timestamp": 0, "input_length": 521, "output_length": 5, "hash_ids": [18446744073709551615]}'
    assert read_workload(write(line)).prefix_blocks.tolist() == [-1]


def test_own_hashes_of_unsigned_64_bits(write):
    text = "arrival_s,num_prompt_tokens,num_output_tokens,prefix_blocks_16\n0,32,1,18446744073709551615 7\n"
    assert read_workload(write(text)).prefix_blocks.tolist() == [-1, 7]


FAULTS = [
    ('"turn": 0', "turn is 0; expected at least 1"),
    ('"turn": "2"', "turn is '\"2\"'; expected a whole number of 64 bits"),
    ('"chat_id": null', "chat_id is 'null'; expected a whole number of 64 bits"),
    ('"timestamp": "1"', "timestamp is '\"1\"'; expected a number of seconds"),
    (f'"hash_ids": [{2**64}]', f"hash_ids is '[{2**64}]'; expected a list of whole numbers of 64 bits"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_faults_of_qwen_bailian(complaint, change, message):
    first = BAILIAN.splitlines()[1]
    line = {**json.loads(first), **json.loads("{" + change + "}")}
    assert complaint(f"{first}\n{json.dumps(line)}\n") == f":2: {message}"
    assert complaint(first.replace('"chat_id": 7, ', "")) == ":1: field chat_id is missing"


def test_llmservingsim(write, complaint):
    workload = read_workload(write(SERVINGSIM))
    assert workload.arrival_s.tolist() == [0.0, 0.500000001]
    assert workload.num_prompt_tokens.tolist() == [128, 64]
    assert workload.num_output_tokens.tolist() == [32, 16]
    assert complaint(SERVINGSIM.replace("1500000002", "1.5")).startswith(
        ":2: arrival_time_ns is '1.5'; expected a whole"
    )


def test_splitwise(write):
    workload = read_workload(write(SPLITWISE, "trace.csv"))
    assert workload.metadata["format"] == "splitwise"
    assert workload.arrival_s.tolist() == [0.0, 0.5]
    assert workload.num_prompt_tokens.tolist() == [512, 100]
    assert workload.num_output_tokens.tolist() == [20, 7]


@pytest.mark.parametrize("indent", [None, 2])
def test_vllm_bench_serve(write, indent):
    workload = read_workload(write(json.dumps(VLLM, indent=indent), "result.json"))
    assert workload.metadata["format"] == "vllm-bench"
    assert workload.num_prompt_tokens.tolist() == [30, 10]  # in order of their starts; the failed one is dropped
    assert workload.num_output_tokens.tolist() == [7, 5]
    assert workload.arrival_s.tolist() == [0.0, 0.25]


def test_vllm_bench_serve_without_starts(write, complaint):
    old = {name: value for name, value in VLLM.items() if name != "start_times"}
    workload = read_workload(write(json.dumps(old)), rate=2.0)
    assert workload.num_prompt_tokens.tolist() == [10, 30]
    assert complaint(json.dumps(old)).startswith(": holds lengths but no arrival times; give a rate")
    totals = {name: value for name, value in old.items() if not name.endswith("_lens")}
    assert complaint(json.dumps(totals)) == (
        ": is a result of vllm bench serve without its lists input_lens and output_lens; run it with --save-result "
        "--save-detailed"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_lens": [1, 2]}, ": output_lens is not a list as long as input_lens, which has 3"),
        ({"input_lens": [1, "2", 3]}, ': request 2: input_lens is "2"; expected whole numbers'),
        ({"start_times": [1, 2, None]}, ": request 3: start_times is null; expected seconds"),
        ({"input_lens": [-1, 2, 3]}, ": request 1: input_lens is -1; expected at least 0"),
    ],
)
def test_faults_of_vllm_bench_serve(complaint, change, message):
    assert complaint(json.dumps({**VLLM, **change})) == message


PAIRS = [
    ("input_length", "output_length"),
    ("input_toks", "output_toks"),
    ("num_prompt_tokens", "num_output_tokens"),
    ("num_prefill_tokens", "num_decode_tokens"),
    ("prompt_len", "output_len"),
    ("input_len", "output_len"),
    ("prompt_tokens", "completion_tokens"),
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("shape", ["lines", "list", "pretty"])
def test_json_of_lengths(write, complaint, pair, shape):
    objects = [{pair[0]: 17, pair[1]: 200, "id": "a"}, {pair[0]: 900, pair[1]: 31}]
    text = json.dumps(objects, indent=2 if shape == "pretty" else None)
    if shape == "lines":
        text = "\n".join(map(json.dumps, objects))
    workload = read_workload(write(text), rate=3.0, seed=1)
    assert workload.num_prompt_tokens.tolist() == [17, 900]
    assert workload.num_output_tokens.tolist() == [200, 31]
    assert workload.mean_rate_per_s > 0.0
    assert complaint(text).startswith(": holds lengths but no arrival times; give a rate")


def test_lists_of_objects_with_arrivals(write, complaint):
    objects = [json.loads(line) for line in MOONCAKE.splitlines()]
    assert_same_requests(read_workload(write(json.dumps(objects, indent=1))), read_workload(write(MOONCAKE)))
    own = [{"arrival_s": 1.5, "num_prompt_tokens": 5, "num_output_tokens": 6}]
    assert read_workload(write(json.dumps(own * 2))).arrival_s.tolist() == [0.0, 0.0]
    own.append({"arrival_s": 1.25, "num_prompt_tokens": 5, "num_output_tokens": 6})
    assert complaint(json.dumps(own)).startswith(": object 2: arrives 0.25 s before the row above")


TEXTS = [
    ('[{"id": 1, "conversations": [{"from": "human", "value": "hi"}]}]', ": object 1: holds texts and no token counts"),
    ('{"prompt": "hello", "timestamp": 3}', ":1: holds texts and no token counts"),
    (json.dumps(json.loads(MOONCAKE.splitlines()[0]), indent=2), ": unknown trace format, it begins with"),
    (
        "\n".join(json.dumps(json.loads(line), indent=2) for line in MOONCAKE.splitlines()),
        ":11: a second JSON object begins after one over several lines; expected one object a line (`jq -c .` writes",
    ),
    ('{\n "timestamp": 5,\n', ":3: is not JSON (Expecting property name enclosed in double quotes at column 1)"),
    ("[]", ": holds an empty list; expected a list of objects, one a request"),
    ("[1, 2]", ": object 1: unknown trace format, it begins with '1'"),
    ('[{"prompt_len": 5, "output_len": 5}, 7]', ": object 2: is '7'; expected a JSON object"),
    ('[{"prompt_len": 5, "output_len": 0}]', ": object 1: output_len is 0; expected at least 1"),
    ('{"arrived": 3, "prompt_len": 5}', ":1: unknown trace format"),
    ('{"timestamp": 3, "prompt_len": 5, "output_len": 5}', ":1: unknown trace format"),
]


@pytest.mark.parametrize(("text", "message"), TEXTS, ids=[text[:30] for text, _ in TEXTS])
def test_json_that_is_no_trace(complaint, text, message):
    assert complaint(text, rate=1.0).startswith(message)


ALL = {
    "azure": AZURE,
    "burstgpt": BURSTGPT,
    "lengths": LENGTHS,
    "mooncake": MOONCAKE,
    "own": OWN,
    "vidur": VIDUR,
    "bailian": BAILIAN,
    "llmservingsim": SERVINGSIM,
    "splitwise": SPLITWISE,
    "vllm": json.dumps(VLLM),
    "sharegpt": json.dumps(SHAREGPT),
}


@pytest.mark.parametrize("text", ALL.values(), ids=ALL.keys())
def test_gzip_of_every_format(write, text):
    plain, packed = (read_workload(write(text, name), rate=2.0) for name in ("a.txt", "a.txt.gz"))
    assert packed.name == plain.name == "a"
    assert_same_requests(packed, plain)


def test_a_step_back_of_100_ns_is_seen_with_its_line(complaint):
    rows = ["2023-11-16 18:15:46.6805900,1,1", "2023-11-16 18:15:46.6805899,1,1"]
    expected = ":3: arrives 1e-07 s before the row above; expected rows in order of arrival"
    assert complaint("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows])) == expected
    many = rows[:1] * NUM_ROWS_PER_BLOCK + rows[1:]
    assert complaint("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *many])).startswith(
        f":{NUM_ROWS_PER_BLOCK + 2}: arrives 1e-07 s"
    )
    late = SERVINGSIM.replace("1000000001", str(2**60 + 1)).replace("1500000002", str(2**60))
    assert complaint(late).startswith(":2: arrives 1e-09 s before the row above")


def test_slices_of_time(write):
    path = write(
        "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(f"{10 + i},{i + 1},1\n" for i in range(9))
    )
    assert read_workload(path, from_s=2.0, to_s=5.0).num_prompt_tokens.tolist() == [3, 4, 5]
    assert read_workload(path, from_s=7.5).num_prompt_tokens.tolist() == [9]
    assert read_workload(path, to_s=2.0).num_prompt_tokens.tolist() == [1, 2]
    part = load_workload(path, from_s=2.0, to_s=7.0, skip=1, first=2, time_scale=0.5)
    assert part.num_prompt_tokens.tolist() == [4, 5]
    assert part.arrival_s.tolist() == [0.0, 0.5]
    assert part.metadata["from_s"] == 2.0


def test_reading_stops_where_the_slice_does(write):
    path = write(VIDUR + "99,1,1,1,1\n" + "garbage\n" * NUM_ROWS_PER_BLOCK)
    assert len(read_workload(path, to_s=50.0)) == 2


def test_models_and_kinds_of_log(write, complaint):
    path = write(BURSTGPT)
    assert read_workload(path, model="gpt-4").num_prompt_tokens.tolist() == [417]
    assert read_workload(path, log_type="Conversation log").num_prompt_tokens.tolist() == [472]
    assert read_workload(path, model="chatgpt").metadata["num_dropped"] == 1
    assert read_workload(path, model="GPT-4").metadata["num_dropped"] == 0
    assert read_workload(write(BAILIAN), log_type="search").num_prompt_tokens.tolist() == [20]
    assert complaint(BURSTGPT, model="gpt") == ": no request has model 'gpt'; there are ChatGPT, GPT-4"
    both = {"model": "GPT-4", "log_type": "Conversation log"}
    assert complaint(BURSTGPT, **both) == ": no request fits the selection (model, log_type)"
    assert complaint(AZURE, model="gpt") == ": Azure CSV has no column by which model could choose, or not here"
    assert (
        complaint(MOONCAKE, log_type="text")
        == ": Mooncake JSONL has no column by which log_type could choose, or not here"
    )
    short = "Timestamp,Request tokens,Response tokens\n1,2,3\n"
    assert complaint(short, model="GPT-4") == ": BurstGPT CSV has no column by which model could choose, or not here"


def test_choices_that_cannot_be(write, complaint):
    assert complaint(VIDUR, from_s=90.0) == ": no request fits the selection (from_s)"
    assert complaint(VIDUR, from_s=0.5, skip=1) == ": skip=1 leaves no request; the selection has 1"
    assert complaint(LENGTHS, rate=1.0, to_s=5.0) == ": holds no arrival times, so from_s and to_s do not apply"
    with pytest.raises(WorkloadError, match=r"to_s \(1.0\) must be later than from_s \(2.0\)"):
        read_workload("never-opened.csv", from_s=2.0, to_s=1.0)
    with pytest.raises(WorkloadError, match="from_s must be a time of at least 0 s, got nan"):
        read_workload("never-opened.csv", from_s=float("nan"))
    with pytest.raises(WorkloadError, match="model chooses requests of a trace file; azure-conv is a preset"):
        load_workload("azure-conv", model="gpt")
