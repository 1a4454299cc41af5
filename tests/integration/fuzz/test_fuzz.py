"""Every endpoint of every service under generated requests: no server error, no answer that OpenAPI does not declare.

The few examples of a normal run are the same each time. `make test-fuzz` sends many, other ones each time, and prints
the seed with which they come again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi import from_url
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fleet_events.topology import SERVICES
from tests.conftest import RunningService, RunService

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

EXAMPLES = int(os.environ.get("LORAFLEET_FUZZ_EXAMPLES", "2"))
SEED = int(os.environ.get("LORAFLEET_FUZZ_SEED", "1"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
LAST = ("/admin/drain",)
"""After it the service refuses everything, as it should."""


@schemathesis.serializer("application/x-ndjson", "application/octet-stream")
def lines(_context: Any, value: Any) -> bytes:
    """A body that an endpoint reads as a stream: what was generated, line by line if it is a list."""
    if isinstance(value, (bytes, str)):
        return value if isinstance(value, bytes) else value.encode(errors="surrogatepass")
    return "\n".join(json.dumps(one) for one in (value if isinstance(value, list) else [value])).encode()


def operations(schema: Any) -> Iterator[Any]:
    found = [result.ok() for result in schema.get_all_operations()]
    return iter(sorted(found, key=lambda operation: operation.path in LAST))


def takes_anything(operation: Any) -> bool:
    """Whether there is anything in its requests that could be wrong."""
    return bool(operation.query or operation.body or operation.path_parameters)


def fuzz(service: RunningService) -> tuple[Counter[str], dict[str, str]]:
    """Send generated requests to every endpoint. The answers by class of status, and the first failure of each kind."""
    statuses: Counter[str] = Counter()
    failures: dict[str, str] = {}
    headers = {"Authorization": service.client.headers["Authorization"]}
    schema = from_url(f"{service.url}/openapi.json")
    for operation, mode in itertools.product(operations(schema), GenerationMode):
        if mode is GenerationMode.NEGATIVE and not takes_anything(operation):
            continue

        @hypothesis.seed(SEED)
        @hypothesis.settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            response = case.call(headers=headers, timeout=30)
            statuses[f"{response.status_code // 100}xx"] += 1
            try:
                case.validate_response(response, checks=CHECKS)
            except FailureGroup as group:
                for failure in group.exceptions:
                    kind = f"{case.operation.label} {response.status_code} {failure.title}"
                    failures.setdefault(kind, f"{failure}\n{case.as_curl_command()}\n{response.text[:500]}")

        send()
    return statuses, failures


@pytest.mark.parametrize("name", SERVICES)
async def test_no_generated_request_gets_an_answer_that_openapi_does_not_declare(
    run_service: RunService, base_model: Path, name: str
) -> None:
    async with run_service(name, LORAFLEET_BASE_MODEL=str(base_model), LORAFLEET_RATE_PER_MINUTE="1000000") as service:
        statuses, failures = await asyncio.to_thread(fuzz, service)
        print(f"{name}: {dict(statuses)} with seed {SEED}, {len(failures)} failures")
        assert not failures, "\n\n".join(f"{kind}\n{failure}" for kind, failure in failures.items())
        assert (await service.client.get("/healthz")).status_code == 200
    # The same for whatever it logged meanwhile, and at its start and end: one JSON object a line, no defect.
    events = [json.loads(line) for line in service.log.splitlines()]
    assert {event["service"] for event in events} == {name}
    assert [event for event in events if event["level"] in {"error", "critical"}] == []
