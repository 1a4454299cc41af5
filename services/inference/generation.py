"""One answer: resolve the model, hold its adapter, run the engine, turn tokens into text, publish that it happened."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import httpx
import numpy as np
import numpy.typing as npt

from fleet_events.v1 import Adapter
from fleet_kit.acting_for import Credential
from fleet_kit.auth import Caller
from services.inference import router_client
from services.inference.answer_task import AnswerTask, End
from services.inference.backend import Compares
from services.inference.backlog import NOTHING_PUBLISHED, Publications
from services.inference.base_models import BaseModels, ServedBaseModel
from services.inference.catalogue import Catalogue
from services.inference.chosen import Chosen
from services.inference.completed import completed_event
from services.inference.engine_thread import Finished, FinishReason, Token
from services.inference.errors import ApiError, Busy, CannotServe, Incompatible, NotActive, NotApproved
from services.inference.failures import failed_event
from services.inference.generation_ids import GenerationIds
from services.inference.http.provenance import Fallback
from services.inference.metrics import FIRST_TOKEN_SECONDS, TOKEN_GAP_SECONDS, TokenCounts
from services.inference.pieces import Piece, PieceStream
from services.inference.policies.preloading import Preloading
from services.inference.precedence import Precedence
from services.inference.publisher import Publisher
from services.inference.quotas import Ledger, Quotas
from services.inference.reading_once import lease_of, stream_of
from services.inference.recording.consent import Consents
from services.inference.recording.pending import pending_answer
from services.inference.recording.recorder import Recorder
from services.inference.resolution import Auto, Base, Mix, base_of, check, resolve
from services.inference.router_client import Query
from services.inference.shadows import Shadows

_WHOLE = ("stop", "length")
"""Ends of answers that may be recorded: one that was cancelled is a part of one."""


class CurrentCatalogue(Protocol):
    """Where the newest catalogue and consents are."""

    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def consents(self) -> Consents: ...


@dataclass(frozen=True, slots=True)
class Generator:
    """Gives answers."""

    projection: CurrentCatalogue
    hosting: BaseModels
    preloading: Preloading
    publisher: Publisher
    ids: GenerationIds
    http: httpx.AsyncClient
    router_url: str
    replica: str
    fallbacks: Mapping[str, str]
    always_fall_back: bool
    count_by_adapter: bool
    """Whether the metrics name who answered: the base model, an adapter, a set."""
    count_adapter_ids: bool = False
    """Whether they name the adapter too."""
    credential: Credential = field(default_factory=lambda: Credential(""))
    """How the router is called."""
    recorder: Recorder | None = None
    """Takes the answers that may become data."""
    publications: Publications = NOTHING_PUBLISHED
    """What a response waits for before it ends."""
    shadows: Shadows | None = None
    """Takes served answers that a rollout's candidate is to answer too."""
    precedence: Precedence = field(default_factory=Precedence)
    """Lets online answers go before those of batches."""
    ledger: Ledger = field(default_factory=lambda: Ledger(Quotas()))
    """Bounds what domains and callers take."""
    tokens: TokenCounts = field(init=False)

    def __post_init__(self) -> None:
        counts = TokenCounts(by_answer=self.count_by_adapter, ids=self.count_adapter_ids)
        object.__setattr__(self, "tokens", counts)

    async def choose(
        self,
        model: str,
        query: Query,
        caller: Caller,
        fallback: bool | str = False,
        *,
        standing: str = "",
        approved: bool = False,
    ) -> Chosen:
        """Who is to answer: `model`, or where that has no servable adapter and a fallback is allowed, the fallback.

        standing: who the caller counts as where a family's version is rolled out; empty has no part in rollouts.
        approved: see `resolution.resolve`.

        Raises what `resolution.resolve` and `router_client.choose` raise; what is unknown or forbidden has no fallback.
        """
        fallback_model = self._fallback_model(model, fallback)
        try:
            chosen = await self._choose(model, query, caller, standing, approved=approved)
            return replace(chosen, fallback_model=chosen.fallback_model or fallback_model)
        except (NotActive, NotApproved, Incompatible, CannotServe, Busy) as error:
            if fallback_model is None:
                raise
            return await self._instead(model, fallback_model, error, query, caller)

    async def secure(
        self, chosen: Chosen, query: Query, caller: Caller, held: AsyncExitStack, wait_credit: float = 0.0
    ) -> Chosen:
        """The same, or its fallback where it has one and cannot be loaded: known before the answer begins.

        held: takes the lease of what has a fallback, so that its adapters stay loaded until they answer.
        """
        if chosen.fallback_model is None:
            return chosen
        try:
            with self.precedence.waits():
                await held.enter_async_context(chosen.hosted.adapters.lease_all(chosen.adapters, wait_credit))
        except (CannotServe, Busy) as error:
            self._failed(chosen, error, caller, self.ids.new(chosen.adapter_id))
            return await self._instead(chosen.requested, chosen.fallback_model, error, query, caller)
        return chosen

    async def _instead(self, model: str, fallback_model: str, error: ApiError, query: Query, caller: Caller) -> Chosen:
        code, message = error.code, error.message
        if isinstance(error, NotApproved):
            code, message = "adapter_not_approved", error.reason
        why = Fallback(requested=model, reason=code, message=message)
        return replace(await self._choose(fallback_model, query, caller), requested=model, fallback=why)

    def _fallback_model(self, model: str, fallback: bool | str) -> str | None:
        if isinstance(fallback, str):
            return fallback
        if not (fallback or self.always_fall_back):
            return None
        record = self.projection.catalogue.records.get(model)
        family = record.family if record else model.partition("@")[0]
        return self.fallbacks.get(model) or self.fallbacks.get(family)

    async def _choose(
        self, model: str, query: Query, caller: Caller, standing: str = "", *, approved: bool = False
    ) -> Chosen:
        hosting, catalogue = self.hosting, self.projection.catalogue
        match resolve(model, catalogue, hosting.bases, caller, approved=approved):
            case Base() as base:
                return Chosen(model, hosting.of(base))
            case Auto():
                answer = await router_client.ask(self.http, self.credential, self.router_url, query, caller)
                routed_to, routed = router_client.choose(answer, catalogue, hosting.bases, caller)
                if routed_to is not None:
                    return self._assigned(Chosen(model, self._host(routed_to), routed_to, routed), caller, standing)
                return Chosen(model, self._host(None), routed=routed)
            case Mix(parts):
                heaviest, _ = max(parts, key=lambda part: part[1])
                return Chosen(model, self._host(heaviest), heaviest, mix=parts)
            case Adapter() as adapter:
                chosen = Chosen(model, self._host(adapter), adapter)
                return self._assigned(chosen, caller, standing) if model == adapter.family else chosen

    def _assigned(self, chosen: Chosen, caller: Caller, standing: str) -> Chosen:
        """The same, or while its family has a rollout what that gives this caller.

        Where this process cannot serve the candidate, the incumbent answers, and the candidate's failure is counted.
        """
        catalogue = self.projection.catalogue
        if chosen.adapter is None or not standing or (given := catalogue.assign(chosen.adapter, standing)) is None:
            return chosen
        hosted = self._host(given.adapter)
        taken = replace(
            chosen,
            hosted=hosted,
            adapter=given.adapter,
            part=given.part,
            beside=given.beside,
            fallback_model=given.instead,
        )
        try:
            check(given.adapter, catalogue, self.hosting.bases, caller)
        except ApiError as error:
            self._failed(taken, error, caller, self.ids.new(given.adapter.adapter_id))
            return replace(
                chosen, fallback=Fallback(requested=chosen.requested, reason=error.code, message=error.message)
            )
        return taken

    def _host(self, adapter: Adapter | None) -> ServedBaseModel:
        base = base_of(adapter, self.hosting.bases) if adapter else None
        return self.hosting.of(base or self.hosting.bases[0])

    async def answer(self, task: AnswerTask) -> AsyncGenerator[Piece | End, None]:
        """Pieces as they come, then their `End`; close the generator to cancel.

        Raises, before the first piece, what `Adapters.lease` and `Backend.generate` raise, and `RateLimited`.
        """
        if not task.is_shadow:
            self.ledger.admit(task.caller.subject, task.chosen.domain)
        try:
            async with aclosing(self._answer(task)) as pieces:
                async for piece in pieces:
                    yield piece
        except Exception as error:
            self._failed(task.chosen, error, task.caller, task.generation_id)
            raise

    async def _answer(self, task: AnswerTask) -> AsyncGenerator[Piece | End, None]:
        chosen = task.chosen
        lease = task.siblings.held() if task.siblings else lease_of(task)
        async with AsyncExitStack() as held:
            await held.enter_async_context(self.precedence.row(chosen.base.name, chosen.hosted.backend.rows))
            with self.precedence.waits():
                await held.enter_async_context(lease)
            pieces = await held.enter_async_context(aclosing(self._run(task)))
            # Not before its own adapters are held: what is brought in for later must not take their slots.
            if task.first:
                self.preloading.asked(task.caller, task.workflow, chosen.adapters, self.projection.catalogue)
            async for piece in pieces:
                yield piece

    async def scores(self, task: AnswerTask, alternatives: int) -> list[Token]:
        """Each token of the prompt after the first, given those before it.

        alternatives: so many of the likeliest tokens at each place, none from a back end that cannot compare.
        """
        chosen, prompt_ids, backend = task.chosen, task.prompt_ids, task.chosen.hosted.backend
        async with nullcontext() if task.held else chosen.hosted.adapters.lease_all(chosen.adapters, task.wait_credit):
            if alternatives and isinstance(backend, Compares):
                return await backend.scores(prompt_ids, chosen.of_engine, alternatives)
            logprobs = await backend.likelihoods(prompt_ids, chosen.of_engine)
        return [Token(*one) for one in zip(prompt_ids[1:], logprobs, strict=True)]

    async def embed(self, chosen: Chosen, texts: Sequence[str | list[int]]) -> npt.NDArray[np.float32]:
        """Sentence vectors of the model with its adapters, of texts or their token ids, [texts, hidden]."""
        async with chosen.hosted.adapters.lease_all(chosen.adapters):
            return await chosen.hosted.backend.embed(texts, chosen.of_engine)

    async def _run(self, task: AnswerTask) -> AsyncGenerator[Piece | End, None]:
        begun, before = time.monotonic(), task.created
        base = task.chosen.base.name
        first, gap = FIRST_TOKEN_SECONDS.labels(base), TOKEN_GAP_SECONDS.labels(base)
        text = PieceStream(task.chosen.hosted.vocabulary, task.stop)
        produced = 0
        texts: list[str] = []
        reason = "cancelled"
        try:
            async with stream_of(task) as deliveries:
                async for delivery in deliveries:
                    # A back end need not know the further stop tokens of a request.
                    if isinstance(delivery, Token) and delivery.id not in task.sampling.extra_stop_ids:
                        now = time.monotonic()
                        (gap if produced else first).observe(now - before)
                        before = now
                        produced += 1
                        piece = text.feed(delivery)
                        texts.append(piece.text)
                        yield piece
                        if not text.stopped:
                            continue
                        reason = "stop"
                        yield End("stop", produced)
                        return
                    rest = text.finish()
                    texts.append(rest.text)
                    if rest.text or rest.tokens:
                        yield rest
                    ended: FinishReason = "stop"
                    if isinstance(delivery, Finished) and not text.stopped:
                        ended = delivery.reason
                    reason = ended
                    yield End(ended, produced)
                    return
        except ApiError:
            reason = ""  # no answer was given, so there is nothing to publish
            raise
        finally:
            if reason:
                self._record(task, produced, begun, reason)
            if reason in _WHOLE:
                self._offer_as_data(task, "".join(texts), reason)

    def _offer_as_data(self, task: AnswerTask, text: str, reason: str) -> None:
        """Hand the answer to the recorder where the policies permit it."""
        projection = self.projection
        if self.recorder is None or task.exchange is None:
            return
        answer = pending_answer(task, text, reason, projection.catalogue, projection.consents)
        if answer is not None:
            self.recorder.take(answer)

    def _failed(self, chosen: Chosen, error: Exception, caller: Caller, generation_id: str) -> None:
        if event := failed_event(chosen, error, caller, generation_id, self.replica):
            self.publisher.say(event, entity=generation_id)

    def _record(self, task: AnswerTask, produced: int, begun: float, reason: str) -> None:
        chosen = task.chosen
        if not task.is_shadow:
            self.ledger.charge(task.caller.subject, chosen.domain, (int(task.first), len(task.prompt_ids), produced))
        self.tokens.count(chosen.answered_by, chosen.adapter_id, prompt=len(task.prompt_ids), completion=produced)
        event = completed_event(
            task, tokens=produced, seconds=time.monotonic() - begun, reason=reason, replica=self.replica
        )
        self.publisher.say(event, entity=task.generation_id)
        if self.shadows is not None and reason != "cancelled":
            self.shadows.offer(task)
