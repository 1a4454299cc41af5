"""Whether the version whose answers a job is to learn is served: asked of inference when the job is submitted."""

from urllib.parse import quote

import httpx
import structlog

from fleet_kit.acting_for import acting_for
from fleet_kit.tls import client_context
from services.trainer.datasets.generators.recipe import FLEET
from services.trainer.faults import Fault
from services.trainer.jobs.context import JobContext

log = structlog.get_logger()

_SECONDS = 3.0


async def unserved(adapter_id: str, domain: str, service: JobContext) -> list[Fault]:
    """A fault where inference does not serve the version, as it has another base model or revision by now.

    Where inference gives no answer there is none: the build of the data set asks again.
    """
    named = service.settings.generation_endpoints.get(FLEET)
    if named is None:
        return []
    try:
        endpoint = named.opened((domain,), service.settings.tls_ca_file)
        headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
        headers |= acting_for(endpoint.act_for) if endpoint.act_for is not None else {}
        url = f"{endpoint.url.rstrip('/')}/models/{quote(adapter_id, safe='')}"
        verify = client_context(endpoint.ca_file)
        async with httpx.AsyncClient(timeout=_SECONDS, headers=headers, verify=verify) as client:
            answer = await client.get(url)
    except (httpx.HTTPError, OSError, ValueError) as error:
        log.warning("distilled_version_not_checked", adapter_id=adapter_id, reason=repr(error))
        return []
    if answer.status_code != httpx.codes.NOT_FOUND:
        return []
    expected = "a version that inference serves, on a base model and revision that it hosts"
    return [Fault("distil_from", adapter_id, expected)]
