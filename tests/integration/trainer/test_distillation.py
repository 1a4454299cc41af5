"""Jobs that distil another version: what cannot be distilled is refused when the job is submitted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunningService, RunService
from tests.integration.trainer.conftest import Bench
from tests.integration.trainer.retraining import Domain, run_pretended

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    async with run_pretended(run_service, tiny_model, tmp_path_factory.mktemp("distillation")) as running:
        yield running


@pytest.fixture
def domain(bench: Bench, tiny_model: Path) -> Domain:
    """A domain of this test's own."""
    return Domain(bench, tiny_model)


async def test_a_version_that_was_released_or_is_of_another_domain_cannot_be_distilled_and_the_field_is_named_at_once(
    domain: Domain,
) -> None:
    bench = domain.bench
    adapter_id = await domain.activate()

    async def refused(**changes: Any) -> tuple[int, dict[str, str]]:
        body = {"domain": domain.name, "distilFrom": adapter_id, **changes}
        answer = await bench.trainer.client.post("/v1/jobs", json=body)
        return answer.status_code, {one["field"]: one["expected"] for one in answer.json()["faults"]}

    status, faults = await refused(domain="elsewhere")
    assert (status, "of domain 'elsewhere'" in faults["distil_from"]) == (422, True)
    async with domain.database() as connection:
        await connection.execute(
            "insert into releases (job_id, adapter_id) select job_id, adapter_id from adapters where adapter_id = $1",
            adapter_id,
        )
    status, faults = await refused()
    assert (status, "this one was released" in faults["distil_from"]) == (422, True)
