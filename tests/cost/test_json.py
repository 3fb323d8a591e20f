"""Cost models as JSON files: there and back, and every way to be malformed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.cost import COSTS, CostModel, CostModelError, load_cost_model
from infermax_gym.cost.features import FEATURE_NAMES

ROOFLINE = CostModel(
    "roofline",
    (((0.001, *[0.0] * 8), (0.0, 1e-5, *[0.0] * 7)), ((1e-7,) * 9,)),
    num_devices=2,
    price_usd_per_device_hour=1.5,
    source="a test",
)

MIXTURE = replace(ROOFLINE, name="mixture", min_terms=(((0.0, 1e-5, *[0.0] * 7), (1e-3, *[0.0] * 8)),))


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "cost.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(ROOFLINE.to_json()), **changes})


@pytest.mark.parametrize("model", [*COSTS.values(), ROOFLINE, MIXTURE], ids=lambda model: model.name)
def test_there_and_back(model: CostModel, tmp_path: Path) -> None:
    """Every coefficient comes back as the same float."""
    assert load_cost_model(written(tmp_path, model.to_json())) == model
    assert load_cost_model(str(tmp_path / "cost.json")).terms == model.terms


def test_the_file_states_its_unit_and_features() -> None:
    data = json.loads(ROOFLINE.to_json())
    assert (data["schema"], data["unit"], data["features"]) == (1, "seconds", list(FEATURE_NAMES))


def test_minima_need_schema_2(tmp_path: Path) -> None:
    """What is convex is written as before, to the byte; older versions refuse what they cannot hold."""
    assert "min_terms" not in json.loads(ROOFLINE.to_json())
    assert hashlib.sha256(COSTS["llama2-7b-a100"].to_json().encode()).hexdigest()[:16] == "77f5c3ca34c2f769"
    data = json.loads(MIXTURE.to_json())
    assert data["schema"] == 2 and data["min_terms"] == [[list(form) for form in MIXTURE.min_terms[0]]]
    again = load_cost_model(written(tmp_path, changed(schema=2)))
    assert again == ROOFLINE and again.is_convex


def test_optional_fields(tmp_path: Path) -> None:
    text = json.dumps({"schema": 1, "unit": "seconds", "name": "bare", "terms": [[[1] * 9]]})
    assert load_cost_model(written(tmp_path, text)) == CostModel("bare", (((1.0,) * 9,),))


def without(field: str) -> str:
    return json.dumps({name: value for name, value in json.loads(ROOFLINE.to_json()).items() if name != field})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"schema": 1' + "0" * 5000 + "}", "not JSON"),
        ("[]", 'expected an object with "schema": 1 or 2'),
        ("{}", 'expected an object with "schema": 1 or 2'),
        (changed(schema=3), 'expected an object with "schema": 1 or 2'),
        (changed(min_terms=[]), '"min_terms" needs "schema": 2'),
        (changed(schema=2, min_terms={}), "'min_terms' must be a list"),
        (changed(schema=2, min_terms=[[]]), "at least one form"),
        (changed(schema=2, min_terms=[[1, 2]]), "min_terms must be lists of lists of 9 numbers"),
        (changed(schema=2, min_terms=[[[1.0] * 8]]), "min term 0, form 0: needs 9 coefficients .* got 8"),
        (changed(schema=2, min_terms=[[[float("nan")] + [0] * 8]]), "coefficient of one must be finite, got nan"),
        (changed(schema=2, min_terms=[[[-1] + [0] * 8]]), "time must not be negative"),
        (changed(unit="ms"), "\"unit\" must be \"seconds\", got 'ms'"),
        (without("unit"), '"unit" must be "seconds", got None'),
        (changed(features=["one"]), r'"features" must be \[\'one\', '),
        (without("name"), "field 'name' is missing"),
        (without("terms"), "field 'terms' is missing"),
        (changed(tems=[]), "unknown field 'tems'"),
        (changed(name=3), "'name' must be a text, got 3"),
        (changed(source=None), "'source' must be a text"),
        (changed(floor_context="false"), "'floor_context' must be true or false, got 'false'"),
        (changed(floor_context=0), "'floor_context' must be true or false"),
        (changed(num_devices=1.5), "'num_devices' must be a whole number, got 1.5"),
        (changed(num_devices=True), "'num_devices' must be a whole number"),
        (changed(num_devices=0), "num_devices must be at least 1"),
        (changed(price_usd_per_device_hour="2"), "must be a number or null"),
        (changed(price_usd_per_device_hour=-2), "must be finite and not negative"),
        (changed(terms={}), "'terms' must be a list"),
        (changed(terms=[]), "at least one term"),
        (changed(terms=[[]]), "at least one form"),
        (changed(terms=[[1, 2]]), "must be lists of lists of 9 numbers"),
        (changed(terms=[["abcdefghi"]]), "must be lists of lists of 9 numbers"),
        (changed(terms=[[[None] * 9]]), "must be lists of lists of 9 numbers"),
        (changed(terms=[[[10**400] + [0] * 8]]), "must be lists of lists of 9 numbers"),
        (changed(terms=[[[1.0] * 8]]), "needs 9 coefficients .* got 8"),
        (changed(terms=[[[float("nan")] + [0] * 8]]), "coefficient of one must be finite, got nan"),
        (changed(terms=[[[float("inf")] + [0] * 8]]), "coefficient of one must be finite, got inf"),
        (changed(terms=[[[-1] + [0] * 8]]), "time must not be negative"),
    ],
)  # fmt: skip
def test_malformed_files(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(CostModelError, match=message) as caught:
        load_cost_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CostModelError, match=r"absent\.json: cannot be read \(No such file or directory\)"):
        load_cost_model(tmp_path / "absent.json")
    with pytest.raises(CostModelError, match="cannot be read"):
        load_cost_model(tmp_path)


def test_numbers_as_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CostModelError):
        load_cost_model(written(tmp_path, changed(terms=[[["1.0"] * 9]])))


def test_names_with_any_characters(tmp_path: Path) -> None:
    model = replace(ROOFLINE, name='größe "7b" \n', source="源")
    assert load_cost_model(written(tmp_path, model.to_json())) == model
