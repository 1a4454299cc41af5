"""`lorafleet chat | feedback`: ask a question, and rate the answer."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from lorafleet import calls
from lorafleet.errors import BadInput
from lorafleet.responses import ChatCompletion, Served


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
        compare: Annotated[
            list[str] | None,
            typer.Option(
                "--compare",
                metavar="MODEL",
                help="A model that answers beside others, two to four of them (default: none).",
            ),
        ] = None,
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
        """Ask a question and print the answer as it is generated; with --compare, those of several models."""
        if compare and (len(compare) < 2 or model != "auto"):
            raise BadInput("--compare", "expected twice or more, each with one model, and no --model")
        request = calls.chat(
            model,
            prompt,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            stream=not session.as_json and not compare,
            compare=compare or (),
        )
        if session.as_json:
            session.json(session.client.call(request))
            return
        if compare:
            answered = session.client.call(request)
            session.out.print(_side_by_side(answered))
            comparison = answered.lorafleet.comparison_id if answered.lorafleet else ""
            session.note(f"[prefer one of them: lorafleet feedback {comparison} --preferred NUMBER]")
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
        *,
        generation_id: Annotated[
            str,
            typer.Argument(
                metavar="GENERATION_ID", help="Id of the answer, as `chat` prints it, or of a comparison (cmp-…)."
            ),
        ],
        rating: Annotated[
            int | None, typer.Option("--rating", min=1, max=5, help="1 (bad) to 5 (good) (default: none).")
        ] = None,
        correction: Annotated[
            str | None, typer.Option("--correction", help="The answer that would have been right (default: none).")
        ] = None,
        preferred_over: Annotated[
            str | None,
            typer.Option(
                "--preferred-over", metavar="GENERATION_ID", help="Another answer, worse than this one (default: none)."
            ),
        ] = None,
        preferred: Annotated[
            int | None,
            typer.Option("--preferred", min=0, help="Of a comparison: the better choice, from 0 (default: none)."),
        ] = None,
        subject: Annotated[
            str | None, typer.Option("--subject", help="Person whose feedback it is (default: who calls).")
        ] = None,
        comment: Annotated[str, typer.Option("--comment", help="Comment on the answer (default: none).")] = "",
        routed_wrongly: Annotated[
            bool, typer.Option("--routed-wrongly", help="Another adapter, or none, was to answer what auto routed.")
        ] = False,
        right_family: Annotated[
            str | None,
            typer.Option(
                "--right-family",
                metavar="FAMILY",
                help="With --routed-wrongly: who was to answer (default: no adapter).",
            ),
        ] = None,
    ) -> None:
        """Rate an answer, correct it, prefer it over another, or tell that it was routed wrongly."""
        if right_family is not None and not routed_wrongly:
            raise BadInput("--right-family", "belongs to --routed-wrongly")
        if preferred is not None:
            if rating is not None or correction is not None or preferred_over is not None or routed_wrongly:
                raise BadInput("--preferred", "belongs to a comparison alone; rate or correct one answer by its id")
            call = calls.prefer(generation_id, preferred, comment, subject=subject)
        else:
            call = calls.feedback(
                generation_id,
                rating,
                comment,
                correction=correction,
                preferred_over=preferred_over,
                subject=subject,
                routed_wrongly=routed_wrongly,
                right_family=right_family,
            )
        given = [
            *([str(rating)] if rating is not None else []),
            *(["a correction"] if correction is not None else []),
            *(["a preference"] if preferred is not None or preferred_over is not None else []),
            *(["a wrong route"] if routed_wrongly else []),
        ]
        if not given:
            options = "--rating, --correction, --preferred-over, --preferred, --routed-wrongly"
            raise BadInput("--rating", f"expected one or more of {options}")
        session.answer(session.client.call(call), f"recorded {' and '.join(given)} for {generation_id}")


def _side_by_side(answered: ChatCompletion) -> Text:
    parts = [f"[{number}] {one.model}\n{one.message.content or ''}" for number, one in enumerate(answered.choices)]
    return Text("\n\n".join(parts))


def _delta(chunk: dict[str, object]) -> str:
    choices = chunk.get("choices")
    if not isinstance(choices, list) or not choices:
        return ""
    delta = choices[0].get("delta") if isinstance(choices[0], dict) else None
    return str(delta.get("content") or "") if isinstance(delta, dict) else ""
