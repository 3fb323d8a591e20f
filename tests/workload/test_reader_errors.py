"""Every fault of a trace is one line that names the file, the line and what is wrong."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from infermax_gym.workload import WorkloadError, read_workload
from infermax_gym.workload.blocks import NUM_ROWS_PER_BLOCK

HEADERS = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens\n",
    "own": "arrival_s,num_prompt_tokens,num_output_tokens,priority,ttft_slo_s,prefix_blocks_16\n",
}
GOOD_RECORD = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}\n'


@pytest.fixture
def complaint(tmp_path):
    """The error of reading a text, with the file's path cut off."""

    def read(text: str | bytes, **options) -> str:
        path = tmp_path / "trace.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(WorkloadError) as error:
            read_workload(path, **options)
        message = str(error.value)
        assert "\n" not in message
        assert message.startswith(str(path))
        return message.removeprefix(str(path))

    return read


AZURE_TIME = "expected a UTC time such as 2023-11-16 18:15:46.6805900"
ROWS = [
    ("azure", "yesterday,1,1", f"TIMESTAMP is 'yesterday'; {AZURE_TIME}"),
    ("azure", ",1,1", f"TIMESTAMP is ''; {AZURE_TIME}"),
    ("azure", "NaT,1,1", f"TIMESTAMP is 'NaT'; {AZURE_TIME}"),
    ("azure", "2023-02-30 00:00:00,1,1", f"TIMESTAMP is '2023-02-30 00:00:00'; {AZURE_TIME}"),
    ("azure", "2023-11-16 18:00:00+02:00,1,1", f"TIMESTAMP is '2023-11-16 18:00:00+02:00'; {AZURE_TIME}"),
    ("azure", "3023-11-16 18:00:00,1,1", f"TIMESTAMP is '3023-11-16 18:00:00'; {AZURE_TIME}"),
    ("azure", "2023-11-16 18:00:00,-1,1", "ContextTokens is -1; expected at least 0"),
    ("vidur", "soon,1,1", "arrived_at is 'soon'; expected a finite number"),
    ("vidur", "nan,1,1", "arrived_at is 'nan'; expected a finite number"),
    ("vidur", "inf,1,1", "arrived_at is 'inf'; expected a finite number"),
    ("vidur", "1e999,1,1", "arrived_at is '1e999'; expected a finite number"),
    ("vidur", "1_0,1,1", "arrived_at is '1_0'; expected a finite number"),
    ("vidur", ",1,1", "arrived_at is ''; expected a finite number"),
    ("vidur", "-1.5,1,1", "arrives at -1.5; expected a time that is not negative"),
    ("vidur", "9,1.5,1", "num_prefill_tokens is '1.5'; expected a whole number"),
    ("vidur", "9,,1", "num_prefill_tokens is ''; expected a whole number"),
    ("vidur", "9,nan,1", "num_prefill_tokens is 'nan'; expected a whole number"),
    ("vidur", "9,1e3,1", "num_prefill_tokens is '1e3'; expected a whole number"),
    ("vidur", "9,1_000,1", "num_prefill_tokens is '1_000'; expected a whole number"),
    ("vidur", "9,\u0661,1", "num_prefill_tokens is '\u0661'; expected a whole number"),
    ("vidur", "9,0x10,1", "num_prefill_tokens is '0x10'; expected a whole number"),
    ("vidur", "9,0,1", "num_prefill_tokens is 0; expected at least 1"),
    ("vidur", "9,1,0", "num_decode_tokens is 0; expected at least 1"),
    ("vidur", "9,1,-7", "num_decode_tokens is -7; expected at least 1"),
    ("vidur", "9,1,1000000001", "num_decode_tokens is 1000000001; expected at most 1000000000"),
    ("vidur", f"9,1,{2**63}", f"num_decode_tokens is '{2**63}'; expected a number of 64 bits"),
    ("vidur", f"9,1,{'9' * 5000}", f"num_decode_tokens is '{'9' * 40}...'; expected a number of 64 bits"),
    ("vidur", "9,1", "has 2 cells; the header has 3"),
    ("vidur", "9,1,1,1", "has 4 cells; the header has 3"),
    ("vidur", '9,"1,1', "a quoted cell does not end on its line"),
    ("vidur", '9,"1\n",1', "a quoted cell does not end on its line"),
    ("vidur", '9,"1"x,1', "is not CSV (',' expected after '\"')"),
    ("burstgpt", "x,GPT-4,1,1", "Timestamp is 'x'; expected a finite number"),
    ("burstgpt", "9,GPT-4,1,", "Response tokens is ''; expected a whole number"),
    ("own", "9,1,1,high,,", "priority is 'high'; expected a whole number"),
    ("own", "9,1,1,0,-1,", "ttft_slo_s is '-1'; expected a time that is not negative"),
    ("own", "9,1,1,0,nan,", "ttft_slo_s is 'nan'; expected a finite number"),
    ("own", "9,1,1,0,,7 x 8", "prefix_blocks_16 is 'x'; expected a whole number"),
]
GOOD_ROWS = {
    "azure": "2023-11-16 18:15:46.6805900,374,44\n",
    "vidur": "1,10,20\n",
    "burstgpt": "1,ChatGPT,10,20\n",
    "own": "1,10,20,0,inf,1 2 3\n",
}


@pytest.mark.parametrize(("name", "row", "message"), ROWS, ids=[f"{n} {r[:30]!r}" for n, r, _ in ROWS])
def test_faulty_rows(complaint, name, row, message):
    good = GOOD_ROWS[name]
    assert complaint(HEADERS[name] + good + good + row + "\n" + good) == f":4: {message}"


def test_the_first_of_several_faults_is_reported(complaint):
    text = HEADERS["vidur"] + "1,1,1\n2,0,1\n0,1,1\nx,1,1\n1,1\n"
    assert complaint(text) == ":3: num_prefill_tokens is 0; expected at least 1"


@pytest.mark.parametrize("place", [0, NUM_ROWS_PER_BLOCK - 1, NUM_ROWS_PER_BLOCK, NUM_ROWS_PER_BLOCK + 7])
def test_lines_are_counted_across_blocks_and_blank_lines(complaint, place):
    rows = ["5,1,1\n"] * (NUM_ROWS_PER_BLOCK + 9)
    rows[place] = "5,many,1\n"
    assert complaint("\n" + HEADERS["vidur"] + "\r\n" + "".join(rows)).startswith(f":{place + 4}: ")


@pytest.mark.parametrize("place", [1, NUM_ROWS_PER_BLOCK, NUM_ROWS_PER_BLOCK + 7])
def test_unsorted_times(complaint, place):
    times = np.arange(NUM_ROWS_PER_BLOCK + 9)
    times[place] = times[place - 1] - 2 if place > 1 else -0
    times[0] = 3 if place == 1 else 0
    text = HEADERS["vidur"] + "".join(f"{time},1,1\n" for time in times.tolist())
    late = times[place - 1] - times[place]
    assert complaint(text) == f":{place + 2}: arrives {late} s before the row above; expected rows in order of arrival"


def test_unsorted_azure_times_are_told_in_seconds(complaint):
    text = HEADERS["azure"] + "2023-11-16 18:00:01,1,1\n2023-11-16 18:00:00.75,1,1\n"
    assert complaint(text) == ":3: arrives 0.25 s before the row above; expected rows in order of arrival"


def test_bytes_that_are_not_utf8_are_reported_with_their_line(complaint):
    text = (HEADERS["vidur"] + "1,1,1\n").encode() + b"1,\xff9,1\n"
    assert complaint(text) == ":3: num_prefill_tokens is '\\\\xff9'; expected a whole number"


JSON_LINES = [
    ('{"timestamp": 1, "input_length": 5', "is not JSON (Expecting ',' delimiter at column 35): "),
    ('{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [1, 2', "is not JSON (Expecting ','"),
    ("[1, 2]", "is '[1, 2]'; expected a JSON object"),
    ("5, 6", "is not JSON (Extra data at column 2): '5, 6'"),
    ('{"timestamp": 1, "input_length": 5}', "field output_length is missing"),
    ('{"timestamp": "1", "input_length": 5, "output_length": 5}', "timestamp is '\"1\"'; expected a number of milli"),
    ('{"timestamp": NaN, "input_length": 5, "output_length": 5}', "timestamp is 'NaN'; expected a number of milli"),
    ('{"timestamp": 1e999, "input_length": 5, "output_length": 5}', "timestamp is 'Infinity'; expected a number of"),
    ('{"timestamp": true, "input_length": 5, "output_length": 5}', "timestamp is 'true'; expected a number of milli"),
    ('{"timestamp": 1' + "0" * 400 + ', "input_length": 5, "output_length": 5}', "timestamp is '1000"),
    ('{"timestamp": -1, "input_length": 5, "output_length": 5}', "arrives at -1.0; expected a time that is not neg"),
    ('{"timestamp": 1, "input_length": 5.0, "output_length": 5}', "input_length is '5.0'; expected a whole number"),
    ('{"timestamp": 1, "input_length": null, "output_length": 5}', "input_length is 'null'; expected a whole number"),
    ('{"timestamp": 1, "input_length": -5, "output_length": 5}', "input_length is -5; expected at least 0"),
    ('{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": 3}', "hash_ids is '3'; expected a list of"),
    ('{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": ["a"]}', "hash_ids is '[\"a\"]'; expected"),
    ('{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [1e3]}', "hash_ids is '[1000.0]'; expected"),
    (f'{{"timestamp": 1, "input_length": 5, "output_length": {2**64}}}', f"output_length is '{2**64}'; expected a"),
]


@pytest.mark.parametrize(("line", "message"), JSON_LINES, ids=[line[:60] for line, _ in JSON_LINES])
@pytest.mark.parametrize("end", ["", "\n", "\n" + GOOD_RECORD], ids=["cut off", "last", "in between"])
def test_faulty_json(complaint, line, message, end):
    assert complaint(GOOD_RECORD + "\n" + line + end).startswith(f":3: {message}")


def test_json_of_another_format(complaint):
    message = complaint('{"question": "hello", "timestamp": 3}\n')
    assert message.startswith(':1: unknown trace format, it begins with \'{"question": "hello"')
    assert "Mooncake JSONL timestamp,input_length,output_length,hash_ids" in message
    assert "vllm bench serve JSON start_times,input_lens,output_lens" in message


def test_first_json_line_cut_off(complaint):
    assert complaint(GOOD_RECORD[:30]).startswith(":1: is not JSON (")


HEADER_FAULTS = [
    ("TIMESTAMP,ContextTokens\n1,2\n", ":1: column GeneratedTokens is missing; Azure CSV needs TIMESTAMP,ContextTok"),
    ("arrived_at,num_prefill_tokens\n1,2\n", ":1: column num_decode_tokens is missing; Vidur CSV needs arrived_at|arr"),
    ("num_prompt_tokens,num_output_tokens\n1,2\n", ":1: column arrival_s is missing; own CSV needs arrival_s,num_pro"),
    ("Timestamp,Request tokens,Model\n", ":1: column Response tokens is missing; BurstGPT CSV needs Timestamp,Reque"),
    ("num_prefill_tokens\n5\n", ":1: column num_decode_tokens is missing; length-only CSV needs num_prefill_tokens,"),
    ("a,b,c\n1,2,3\n", ":1: unknown trace format, it begins with 'a,b,c'; known are own CSV arrival_s,num_prompt_t"),
    ("1,2,3\n4,5,6\n", ":1: unknown trace format, it begins with '1,2,3'"),
    ("arrival_s;num_prompt_tokens;num_output_tokens\n", ":1: unknown trace format"),
    ('[{"timestamp": 0}]\n', ": object 1: unknown trace format"),
    ("a,a,arrival_s\n", ":1: column 'a' is named twice"),
    ('"arrival_s,num_prompt_tokens\n', ":1: "),
    ("\n \n", ": the file is empty"),
    ("", ": the file is empty"),
    ("\ufeff", ": the file is empty"),
    (HEADERS["azure"], ": holds a header but no requests"),
    (HEADERS["azure"] + "\n\r\n", ": holds a header but no requests"),
    (HEADERS["burstgpt"] + "1,G,5,0\n2,G,5,0\n", ": holds no request that was served; all 2 rows have a count of 0"),
    (HEADERS["vidur"].encode() + b"1,\x00,3\n", ": is a binary file; expected CSV or JSON text"),
    (gzip.compress(b"a,b,c\n", mtime=0), ":1: unknown trace format, it begins with 'a,b,c'"),
    (gzip.compress(b"", mtime=0), ": the file is empty"),
    (gzip.compress(b"PAR1\x15\x04", mtime=0), ": is a Parquet file; convert it to CSV first"),
    (gzip.compress(HEADERS["vidur"].encode() + b"1,1,1\n" * 9_000, mtime=0)[:-20], ": its gzip data is damaged ("),
    (gzip.compress(HEADERS["vidur"].encode(), mtime=0)[:15] + b"garbage", ": its gzip data is damaged ("),
    (b"PAR1\x15\x04", ": is a Parquet file; convert it to CSV first"),
    (HEADERS["vidur"].encode("utf-16"), ": is text in UTF-16; save it as UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), HEADER_FAULTS, ids=[str(text)[:40] for text, _ in HEADER_FAULTS])
def test_faulty_files(complaint, text, message):
    assert complaint(text).startswith(message)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(WorkloadError, match=r"missing\.csv: no such file$"):
        read_workload(tmp_path / "missing.csv")
    with pytest.raises(WorkloadError, match=r": is a directory; expected a trace file$"):
        read_workload(tmp_path)
    with pytest.raises(WorkloadError, match=r"trace\.csv: cannot be read \(Not a directory\)$"):
        path = tmp_path / "file"
        path.touch()
        read_workload(path / "trace.csv")
    with pytest.raises(WorkloadError, match=r"not a usable path"):
        read_workload("a\0b.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": -1}, "skip must not be negative, got -1"),
        ({"first": 0}, "first must be at least 1, got 0"),
        ({"time_scale": 0.0}, "time scale must be positive and finite, got 0.0"),
        ({"time_scale": float("nan")}, "time scale must be positive and finite, got nan"),
        ({"rate": -2.0}, "rate must be positive and finite, got -2.0"),
        ({"rate": 2.0, "time_scale": 0.5}, r"give a time scale \(0.5\) or a rate \(2.0\), not both"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(WorkloadError, match=message):
        read_workload(tmp_path / "never-opened.csv", **options)


def test_skipping_everything(complaint):
    text = HEADERS["vidur"] + "1,1,1\n2,1,1\n"
    assert complaint(text, skip=2) == ": skip=2 leaves no request; the file has 2"


def test_bad_seed_for_lengths(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n1,1\n")
    with pytest.raises(WorkloadError, match="seed must not be negative, got -1"):
        read_workload(path, rate=1.0, seed=-1)
