"""`lorafleet adapters convert`: an MLX or PEFT adapter for llama.cpp, on this machine, without a fleet."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fleet_cli.files import read_lines
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from lorafleet.errors import BadInput, FleetError

if TYPE_CHECKING:
    from lora_core.engine import ArrowEngine
    from lora_core.interop.gguf import Quantisation


class Level(StrEnum):
    """llama.cpp's levels; f16 is the adapter's own numbers."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q6_K = "q6_k"
    Q4_K_M = "q4_k_m"


def add(group: CommandGroup) -> None:
    """Add the command to `adapters`."""

    @group.command("convert")
    def convert(
        session: Session,
        *,
        folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="MLX or PEFT folder of an adapter.")],
        model: Annotated[Path, typer.Option("--model", help="Folder of its base model (config.json, safetensors).")],
        validation: Annotated[
            str, typer.Option("--validation", help="JSONL with prompt and completion to validate the file with.")
        ],
        output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the GGUF file and its manifest.")],
        level: Annotated[Level, typer.Option("--level", help="Quantisation level.")] = Level.F16,
        name: Annotated[str, typer.Option("--name", help="Name of the files (default: the folder's).")] = "",
        version: Annotated[str, typer.Option("--version", help="Version in the manifest, X.Y.Z.")] = "1.0.0",
        adapter_type: Annotated[
            str,
            typer.Option(
                "--adapter-type", help="Type whose quality threshold the level must reach (default: the general one)."
            ),
        ] = "",
        samples: Annotated[
            int, typer.Option("--samples", help="Number of training samples, for the manifest.", min=0)
        ] = 0,
    ) -> None:
        """Convert an adapter for llama.cpp, validate the file, and describe it in a manifest."""
        from lora_core.errors import AdapterError

        rows = read_lines(validation, "--validation", ("prompt", "completion"))
        called = name or folder.resolve().name
        try:
            from lora_core.conversion import Description, convert_for_llama, read_adapter

            engine = _engine(model, read_adapter(folder, model).max_rank)
            texts = [f"{row['prompt']}{row['completion']}" for row in rows]
            made = convert_for_llama(
                folder,
                output,
                model,
                Description(called, version, model.resolve().name, adapter_type, samples, datetime.now(UTC)),
                engine=engine,
                validation=[engine.tokenizer(text)["input_ids"] for text in texts],
                quantisation=None if level is Level.F16 else cast("Quantisation", level.value),
            )
        except AdapterError as error:
            raise BadInput("FOLDER", str(error)) from error
        except ImportError as error:
            raise FleetError(f"this needs torch and gguf: pip install 'lorafleet[inference]' ({error})") from error
        manifest = json.loads(made.manifest.model_dump_json())
        kept = f"{made.difference.agreement:.1%} of {made.difference.positions} tokens"
        session.answer({**manifest, "file": str(made.gguf)}, f"{made.gguf}: {level.value}, prefers {kept} as before")


def _engine(model: Path, rank: int) -> ArrowEngine:
    """With slots for the adapter and for its converted form."""
    from transformers.utils import logging

    from lora_core.engine import ArrowEngine

    bars: Any = logging
    bars.disable_progress_bar()  # the output is one line
    try:
        return ArrowEngine.open(model, slots=2, max_rank=rank)
    except (OSError, ValueError) as error:
        raise BadInput("--model", f"{model} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
