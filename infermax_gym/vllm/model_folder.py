"""A model folder for servers that compute nothing, or nothing that matters: a tiny Llama and a tokenizer of words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCAB_SIZE = 4096


def write_model_folder(folder: Path, max_model_len: int, **sizes: Any) -> None:
    """Write a model that vLLM starts with, without weights.

    Args:
        folder: made if it is not there.
        max_model_len: longest prompt + output, tokens.
        sizes: entries of its configuration that shall be others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": VOCAB_SIZE,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": max_model_len,
        "torch_dtype": "float32",
    }
    _write(folder / "config.json", {**config, **sizes})
    special = ("<unk>", "<s>", "</s>")
    words = [*special, *(f"w{i}" for i in range(len(special), VOCAB_SIZE))]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [_special(i, text) for i, text in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": special[0]},
    }
    _write(folder / "tokenizer.json", tokenizer)
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": special[0],
        "bos_token": special[1],
        "eos_token": special[2],
        "model_max_length": max_model_len,
        "chat_template": "{% for message in messages %}{{ message['content'] }} {% endfor %}",
    }
    _write(folder / "tokenizer_config.json", about)


def _special(token: int, text: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token, "content": text, **flags}


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record), encoding="utf-8")
