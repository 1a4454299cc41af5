"""The judges that the settings name, made for one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from fleet_kit.db import Connection
from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.domain import Evaluation
from services.evaluator.judging import calibration_store, reference_judge
from services.evaluator.judging.calibration import UNCALIBRATED
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.judge import Judge, ReferenceJudge
from services.evaluator.judging.llm_judge import LLMJudge, recorded_settings
from services.evaluator.judging.pairwise_judge import PairwiseJudge
from services.evaluator.judging.panel_judge import Member, PanelJudge
from services.evaluator.judging.panel_pairs import PairJudges, PairMember
from services.evaluator.openai_client import OpenAIClient
from services.evaluator.settings import REFERENCE, EvaluatorSettings


class Judges:
    """Judges by golden data set and domain. Their endpoints are shared by all evaluations of this process."""

    def __init__(
        self,
        settings: EvaluatorSettings,
        http: httpx.AsyncClient,
        models_for: Callable[[str], OpenAIClient],
        tests: CodeTests,
    ) -> None:
        """models_for gives access to inference for one domain alone."""
        self._settings = settings
        self._models_for = models_for
        self._tests = tests
        self._http = http
        self._endpoints = {name: JudgeEndpoint(name, chosen, http) for name, chosen in settings.judges.items()}

    async def judge(self, connection: Connection, evaluation: Evaluation, dataset_id: str) -> Judge:
        """Who judges the evaluation with this golden data set, calibrated as known when it was requested: taken up
        again later, it is still the same judge."""
        name = self._settings.judge_for(evaluation.domain, dataset_id)
        return await self._named(connection, evaluation, name, self._reference(evaluation))

    async def pairwise(self, connection: Connection, evaluation: Evaluation, dataset_id: str) -> PairJudges | None:
        """Who compares pairs of answers: the judge, or a panel's members that do, measured as known when the evaluation
        was requested; None where none does."""
        name = self._settings.judge_for(evaluation.domain, dataset_id)
        return await self.comparing(connection, evaluation, name)

    async def comparing(self, connection: Connection, evaluation: Evaluation, name: str) -> PairJudges | None:
        """The same of the judge or panel with this name."""
        comparing = []
        for member in self._settings.panels.get(name, (name,)):
            chosen = self._settings.judges.get(member)
            if chosen is None or not chosen.pairwise:
                continue
            called = self._single(member, self._reference(evaluation)).name
            _, pairs = await calibration_store.calibration(connection, called, evaluation.domain, evaluation.created_at)
            comparing.append(PairMember(called, PairwiseJudge(member, chosen, self._endpoints[member]), pairs))
        return PairJudges(comparing) if comparing else None

    async def replaying(
        self, connection: Connection, evaluation: Evaluation, judging: Mapping[str, Any], reference: Judge
    ) -> Judge | None:
        """The code of today with the parameters that the evaluation recorded (`judging`), `reference` in the reference
        judge's place. Members of a panel have those of the settings. None where nothing tells who it was."""
        name = name_of(evaluation)
        if name == REFERENCE or name in self._settings.panels:
            return await self._named(connection, evaluation, name, reference)
        chosen = recorded_settings(judging) or self._settings.judges.get(name)
        if chosen is None:
            return None
        endpoint = JudgeEndpoint(name, chosen, self._http)
        return LLMJudge(name, chosen, endpoint, self._tests, reference if chosen.rules_first else None)

    async def again(self, connection: Connection, evaluation: Evaluation, reference: Judge) -> Judge | None:
        """Who judged it, as the settings have it; None where they make another judge of that name by now, or none."""
        name = name_of(evaluation)
        if name != REFERENCE and name not in self._settings.judges and name not in self._settings.panels:
            return None
        judge = await self._named(connection, evaluation, name, reference)
        return judge if judge.name == evaluation.judge else None

    async def _named(self, connection: Connection, evaluation: Evaluation, name: str, reference: Judge) -> Judge:
        if name not in self._settings.panels:
            return self._single(name, reference)
        members = []
        for member in self._settings.panels[name]:
            judge = self._single(member, reference)
            fitted, pairs = await calibration_store.calibration(
                connection, judge.name, evaluation.domain, evaluation.created_at
            )
            members.append(Member(judge, fitted, pairs))
        return PanelJudge(name, members)

    def without_reference(self, domain: str) -> Judge | None:
        """Who judges a domain's live answers: its judge, or its panel's language models; None where it has none."""
        name = self._settings.judge_for(domain, "")
        models = [one for one in self._settings.panels.get(name, (name,)) if one != REFERENCE]
        judges = [
            LLMJudge(one, self._settings.judges[one], self._endpoints[one], self._tests, without_reference=True)
            for one in models
        ]
        if name not in self._settings.panels:
            return judges[0] if judges else None
        return PanelJudge(name, [Member(one, UNCALIBRATED) for one in judges]) if judges else None

    def _reference(self, evaluation: Evaluation) -> Judge:
        return ReferenceJudge(
            self._models_for(evaluation.domain),
            base_model=evaluation.base_model,
            embeddings_model=self._settings.embedding_model_name,
            tests=self._tests,
        )

    def _single(self, name: str, reference: Judge) -> Judge:
        if name == REFERENCE:
            return reference
        chosen = self._settings.judges[name]
        return LLMJudge(name, chosen, self._endpoints[name], self._tests, reference if chosen.rules_first else None)


def name_of(evaluation: Evaluation) -> str:
    """The settings' name of the judge that the evaluation has."""
    name = evaluation.judge.partition("/")[0]
    return REFERENCE if name == reference_judge.NAME.partition("/")[0] else name
