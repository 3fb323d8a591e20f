"""Assembles the commands and turns every ending into an exit code: 0, 2 with one line, or 130."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from infermax_gym import __version__
from infermax_gym.cli.bench import bench
from infermax_gym.cli.bound import bound
from infermax_gym.cli.calibrate import calibrate
from infermax_gym.cli.capacity import capacity
from infermax_gym.cli.cost import cost
from infermax_gym.cli.dataset import dataset
from infermax_gym.cli.errors import InputError, Interrupted, missing_extra
from infermax_gym.cli.evaluate import evaluate
from infermax_gym.cli.export import export
from infermax_gym.cli.fit import fit
from infermax_gym.cli.listing import list_names
from infermax_gym.cli.optimal import optimal
from infermax_gym.cli.profile import profile
from infermax_gym.cli.replay import replay
from infermax_gym.cli.report import report
from infermax_gym.cli.serve_emulated import serve_emulated
from infermax_gym.cli.simulate import simulate
from infermax_gym.cli.steps import steps
from infermax_gym.cli.sweep import sweep
from infermax_gym.cli.tune import tune
from infermax_gym.cli.verify import verify
from infermax_gym.cli.watch import watch

_EXIT_OK = 0
_EXIT_BAD_INPUT = 2
_EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="infermax",
    help="Simulate, compare and learn schedulers for LLM inference.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# What each command is for, as `infermax --help` groups them.
_PANELS: dict[str, dict[str, Callable[..., Any]]] = {
    "Compare and choose": {
        "tune": tune,
        "bench": bench,
        "simulate": simulate,
        "capacity": capacity,
        "sweep": sweep,
        "list": list_names,
    },
    "See": {"watch": watch, "report": report},
    "Optimum": {"optimal": optimal, "bound": bound},
    "Engines and their costs": {"cost": cost, "profile": profile, "fit": fit},
    "Real servers": {
        "replay": replay,
        "calibrate": calibrate,
        "steps": steps,
        "export": export,
        "serve-emulated": serve_emulated,
    },
    "Benchmark suite": {"evaluate": evaluate, "verify": verify, "dataset": dataset},
}
for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; None takes the process's own.

    Returns:
        The exit code: 0, 2 for bad input (one line on standard error), 130 for Ctrl-C.
    """
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="infermax", standalone_mode=False)
        sys.stdout.flush()
        if code == _EXIT_INTERRUPTED:  # how some versions of typer put KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else _EXIT_OK
    except Interrupted as interruption:
        return _end(_EXIT_INTERRUPTED, f"interrupted: {interruption}")
    except (KeyboardInterrupt, typer.Abort):
        return _end(_EXIT_INTERRUPTED, "interrupted")
    except InputError as error:
        return _end(_EXIT_BAD_INPUT, f"error: {error}")
    except (BrokenPipeError, SystemExit):  # the reader, such as `head`, has seen enough; rich and typer exit by it
        with suppress(BrokenPipeError):
            sys.stdout.flush()  # what a shell completes is on its way
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_OK
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        return _end(_EXIT_BAD_INPUT, f"error: {missing}")
    except OSError as error:  # the disk is full, or what could be read a moment ago is gone
        where = "" if error.filename is None else f"{error.filename}: "
        return _end(_EXIT_BAD_INPUT, f"error: {where}{error.strerror or error}")
    except OverflowError as error:
        return _end(_EXIT_BAD_INPUT, f"error: a number is too large ({error})")
    except MemoryError:
        return _end(_EXIT_BAD_INPUT, "error: not enough memory for these sizes; take fewer requests or replicas")
    except Exception as error:
        if _is_a_schedulers_fault(error):
            return _end(_EXIT_BAD_INPUT, f"error: {error}")
        # typer reports wrong usage by exceptions that say themselves how they read; others are faults of ours.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        return _end(_EXIT_BAD_INPUT, f"error: {explain()} (see --help)")


def _is_a_schedulers_fault(error: Exception) -> bool:
    """Whether a scheduler or a router decided what cannot be carried out."""
    engine, cluster = (sys.modules.get(f"infermax_gym.{name}") for name in ("engine", "cluster"))
    return (engine is not None and isinstance(error, engine.SchedulerError)) or (
        cluster is not None and isinstance(error, cluster.RouterError)
    )


def _end(code: int, message: str) -> int:
    print(f"infermax: {' '.join(message.split())}", file=sys.stderr)
    return code
