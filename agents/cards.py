"""The card of a trained policy and its weights, as they stand in a file: read without the code that runs them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from infermax_gym.agents.serialization import modern, modern_word

SCHEMA = 2
SUFFIX = ".safetensors"
ZOO = Path(__file__).parent / "zoo"
CARD = "infermax_agent"

Tensors = dict[str, NDArray[np.float32]]


def digest(tensors: Tensors, card: Mapping[str, Any]) -> str:
    """SHA-256 over the weights and all of the card but its own entry for it."""
    rest = {name: value for name, value in card.items() if name != "sha256"}
    sha256 = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        sha256.update(f"{name} {tensors[name].shape} {tensors[name].dtype}".encode())
        sha256.update(tensors[name].tobytes())
    return sha256.hexdigest()


def resolve(path: str | Path) -> Path:
    """The file of a trained policy that is given by its path or, if it is shipped, by its name."""
    shipped = ZOO / f"{path}{SUFFIX}"
    return shipped if os.sep not in str(path) and not os.path.exists(path) and shipped.exists() else Path(path)


def read_card(data: bytes) -> tuple[dict[str, Any], Tensors]:
    """Card, in today's words, and weights of a file.

    Raises:
        ValueError: it is no such file, corrupt, or of a schema that this version does not read; one line.
    """
    card, tensors = _parse(data)
    schema = card.get("schema")
    if schema not in (1, SCHEMA):
        raise ValueError(f"card has schema {schema!r}; this version reads 1 and {SCHEMA}")
    if card.get("sha256") != digest(tensors, card):
        raise ValueError("is corrupt: weights and card do not match its sha256")
    if schema == 1:
        card, tensors = modern(card), {modern_word(name): array for name, array in tensors.items()}
    return card, tensors


def _parse(data: bytes) -> tuple[dict[str, Any], Tensors]:
    """Card and weights; ValueError in one line if the bytes are no such file."""
    size = int.from_bytes(data[:8], "little")
    try:
        if len(data) < 8 or data[8:9] != b"{":
            raise ValueError("is not a trained policy; expected a safetensors file with a card")
        if 8 + size > len(data):
            raise ValueError("is truncated or corrupt: its header goes beyond its end")
        header = json.loads(data[8 : 8 + size])
        card = json.loads(header["__metadata__"][CARD])
        tensors = safetensors.numpy.load(data)
    except SafetensorError as error:
        raise ValueError(f"is truncated or corrupt ({error})") from None
    except (KeyError, TypeError):
        raise ValueError("has no card of a trained policy in its metadata") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("is corrupt: its header is no JSON") from None
    if not isinstance(card, dict) or not {"kind", "name"} <= card.keys():
        raise ValueError("has a card without kind or name")
    return card, tensors
