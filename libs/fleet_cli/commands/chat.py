"""`lorafleet chat | feedback`: ask a question, and rate the answer."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli.client import calls
from fleet_cli.client.responses import Served
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session


def _footer(served: Served | None, generation_id: str) -> str:
    who = "the base model"
    if served is not None and served.mix:
        who = " + ".join(f"{one.adapter_id} × {one.weight:g}" for one in served.mix)
    elif served is not None and served.adapter_id:
        who = f"{served.adapter_id} (artifact {(served.artifact_sha256 or '')[:12]})"
    return f"[{who}; rate it: lorafleet feedback {generation_id} --rating 5]"


def add(root: CommandGroup) -> None:
    """Add `chat` and `feedback` to the root."""

    @root.command("chat")
    def chat(
        session: Session,
        *,
        prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The question.")],
        model: Annotated[
            str, typer.Option("--model", help="Base model, adapter id, family, weighted set, or auto.")
        ] = "auto",
        system: Annotated[str, typer.Option("--system", help="System message (default: none).")] = "",
        max_tokens: Annotated[
            int, typer.Option("--max-tokens", min=1, max=4096, help="Longest answer in tokens.")
        ] = 256,
        temperature: Annotated[
            float, typer.Option("--temperature", min=0, max=2, help="Sampling temperature; 0 is greedy.")
        ] = 0.0,
        seed: Annotated[
            int | None, typer.Option("--seed", min=0, help="Seed of the sampling (default: random).")
        ] = None,
    ) -> None:
        """Ask a question and print the answer as it is generated."""
        request = calls.chat(
            model,
            prompt,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            stream=not session.as_json,
        )
        if session.as_json:
            session.json(session.client.call(request))
            return
        served, generation = None, ""
        for chunk in session.client.stream(request):
            generation = str(chunk.get("id") or generation)
            if "lorafleet" in chunk:
                served = Served.model_validate(chunk["lorafleet"])
            print(_delta(chunk), end="", file=session.out.file, flush=True)
        print(file=session.out.file)
        session.note(_footer(served, generation))

    @root.command("feedback")
    def feedback(
        session: Session,
        generation_id: Annotated[
            str, typer.Argument(metavar="GENERATION_ID", help="Id of the answer, as `chat` prints it.")
        ],
        rating: Annotated[int, typer.Option("--rating", min=1, max=5, help="1 (bad) to 5 (good).")],
        comment: Annotated[str, typer.Option("--comment", help="Comment on the answer (default: none).")] = "",
    ) -> None:
        """Rate an answer."""
        answered = session.client.call(calls.feedback(generation_id, rating, comment))
        session.answer(answered, f"recorded {rating} for {generation_id}")


def _delta(chunk: dict[str, object]) -> str:
    choices = chunk.get("choices")
    if not isinstance(choices, list) or not choices:
        return ""
    delta = choices[0].get("delta") if isinstance(choices[0], dict) else None
    return str(delta.get("content") or "") if isinstance(delta, dict) else ""
