"""`model: auto`: queries the router, then checks its answer against what this process knows."""

from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from pydantic import BaseModel, Field, ValidationError

from fleet_events.v1 import Adapter
from fleet_kit.acting_for import Credential
from services.inference.catalogue import Catalogue, Standing
from services.inference.errors import ApiError, Busy
from services.inference.http.provenance import Routed
from services.inference.resolution import Asker, Bases, check, reaches

CANDIDATES = 5
"""Matches requested of the router: the best one may belong to a base model that is not here."""
TIMEOUT = 5.0
LONGEST, EARLIER = 20_000, 16
"""Characters of a turn, and turns before the last one, that the router takes."""


class Match(BaseModel):
    """One line of the router's answer."""

    adapter_id: str
    family: str
    domain: str
    score: float
    threshold: float | None = None
    """From which similarity on it is a match."""


class RouterAnswer(BaseModel):
    """The router's answer."""

    matches: list[Match]
    threshold: float | None = Field(default=None)
    """Of what is nearest."""
    outcome: str = ""
    """match, ambiguous or abstain."""
    nearest: Match | None = None
    margin: float | None = None
    """How far the nearest is before the second."""


@dataclass(frozen=True, slots=True)
class Query:
    """What the router is queried with: the last user turn, and those before it, oldest first."""

    text: str
    earlier: Sequence[str] = ()


NO_QUERY = Query("")
"""Of requests that name who is to answer."""


async def ask(
    client: httpx.AsyncClient, credential: Credential, router_url: str, query: Query, asker: Asker
) -> RouterAnswer:
    """What the router answers to this service's credential, acting for the caller: within the caller's domains.

    Raises:
        Busy: the router is unavailable. The base model does not answer in its place.
    """
    if not query.text.strip():
        return RouterAnswer(matches=[])
    if not router_url:
        raise Busy("this server has no router; name a model.", code="router_unavailable", param="model", retry_after=60)
    try:
        answer = await client.post(
            f"{router_url.rstrip('/')}/v1/route",
            json={
                "query": _ends(query.text),
                "earlier": [_ends(turn) for turn in query.earlier[-EARLIER:] if turn],
                "k": CANDIDATES,
            },
            headers=credential.acting_for(asker.domains),
            timeout=TIMEOUT,
        )
        return RouterAnswer.model_validate_json(answer.raise_for_status().content)
    except (httpx.HTTPError, ValidationError) as error:
        raise Busy(
            f"the router is unavailable ({type(error).__name__}); name a model or try again.",
            code="router_unavailable",
            param="model",
            retry_after=2,
        ) from error


def _ends(text: str) -> str:
    """The beginning and the end of a text that is longer than the router takes: the question is mostly at the end."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 4]}\n{text[-(LONGEST // 4) * 3 + 1 :]}"


def choose(answer: RouterAnswer, catalogue: Catalogue, bases: Bases, asker: Asker) -> tuple[Adapter | None, Routed]:
    """The best match that may serve, or None for the base model, and why. Pure.

    A match that is being switched stands for its family: the family's active version answers.

    Raises:
        Busy: a match is so new that this process has not received its event.
    """
    passed_over: list[str] = []
    for match in answer.matches:
        if not reaches(asker, match.domain):
            continue  # nor is it named: what lies beyond the caller's domains does not exist for it
        adapter = catalogue.active.get(match.family)
        if adapter is None:
            if catalogue.standing(match.adapter_id) in {Standing.INACTIVE, Standing.REJECTED}:
                passed_over.append(f"{match.adapter_id} is deactivated")
                continue
            raise Busy(
                f"{match.adapter_id!r} is being activated; try again.",
                code="adapter_loading",
                param="model",
                retry_after=1,
            )
        try:
            check(adapter, catalogue, bases, asker)
        except ApiError as error:
            passed_over.append(f"{adapter.adapter_id}: {error.code}")
            continue
        return adapter, Routed(
            matched=True,
            adapter_id=adapter.adapter_id,
            score=match.score,
            threshold=match.threshold,
            margin=answer.margin,
            ambiguous=answer.outcome == "ambiguous",
            reason=_why(match, answer),
        )
    reason = "; ".join(passed_over) or _why_none(answer)
    return None, Routed(
        matched=False,
        score=answer.nearest and answer.nearest.score,
        threshold=answer.threshold,
        margin=answer.margin,
        reason=f"base model answers: {reason}",
    )


def _why(match: Match, answer: RouterAnswer) -> str:
    threshold = "" if match.threshold is None else f", its threshold {match.threshold:.3f}"
    others = "; others suit about as well" if answer.outcome == "ambiguous" else ""
    return f"nearest adapter, similarity {match.score:.3f}{threshold}{others}"


def _why_none(answer: RouterAnswer) -> str:
    nearest, threshold = answer.nearest, answer.threshold
    if nearest is not None and threshold is not None and nearest.score >= threshold:
        return "it is like a query that was taught to be for no adapter"
    limit = "" if threshold is None else f" (threshold {threshold:.2f})"
    similarity = "" if nearest is None else f", the nearest has similarity {nearest.score:.3f}"
    return f"no adapter is near enough{limit}{similarity}"
