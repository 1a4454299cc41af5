"""Dead letters and traces on the console: who sees them, the way back, the events of one trace in their order."""

from __future__ import annotations

import asyncio
import re
import secrets

import httpx
import pytest
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_kit.cloudevents import seal
from fleet_kit.dead_letter_writer import store_refused
from tests.conftest import RunningService
from tests.integration.console.conftest import SignIn
from tests.integration.console.test_console import form_token
from tests.integration.registry.conftest import Upstream

pytestmark = pytest.mark.integration
OPERATOR = ("admin", "adapters:read")


async def buried(jetstream: JetStreamContext, domain: str) -> str:
    """An event of the registry that no stream took; returns its id."""
    event = v1.UpdateRecommended(family="f", domain=domain, running="<b>a</b>", available="b")
    sealed = seal(
        event, service="registry", entity="f", trace={"traceparent": f"00-{secrets.token_hex(16)}-{'1' * 16}-01"}
    )
    await store_refused(jetstream, "registry", sealed, "the <i>stream</i> was gone")
    return sealed.id


async def place_of(browser: httpx.AsyncClient, domain: str) -> str:
    """Where the page of the domain's letter is."""
    listed = await browser.get("/console/dead-letters")
    assert listed.status_code == 200, listed.text
    rows = [row for row in listed.text.split("<tr>") if f"<td>{domain}</td>" in row]
    assert len(rows) == 1, listed.text
    return str(re.search(r'href="(/console/dead-letters/[^"]+)"', rows[0])[1])  # type: ignore[index]


async def test_a_letter_is_replayed_from_its_page_and_the_second_person_is_told(
    registry: RunningService, jetstream: JetStreamContext, sign_in: SignIn, domain: str
) -> None:
    await buried(jetstream, domain)
    async with sign_in(domain, scopes=OPERATOR) as ann, sign_in(scopes=OPERATOR, subject="bob") as bob:
        where = await place_of(ann, domain)
        shown = (await ann.get(where)).text
        assert "cannot be published: the &lt;i&gt;stream&lt;/i&gt; was gone" in shown
        assert "&lt;b&gt;a&lt;/b&gt;" in shown, "the body, as text"
        assert "<b>a</b>" not in shown
        assert (await ann.post(f"{where}/replay")).status_code == 403, "without the form's mark"
        done = await ann.post(f"{where}/replay", data={"form_token": form_token(shown)})
        assert (done.status_code, done.headers["location"]) == (303, "/console/dead-letters?replayed=published")
        assert "has taken effect" in (await ann.get(done.headers["location"])).text
        late = await bob.post(f"{where}/replay", data={"form_token": form_token((await bob.get("/console/")).text)})
        assert late.status_code == 409
        assert "ann has replayed this dead letter" in late.text
        assert where not in (await ann.get("/console/dead-letters")).text


async def test_letters_of_another_domain_are_not_shown_and_the_page_needs_the_scope(
    registry: RunningService, jetstream: JetStreamContext, sign_in: SignIn, domain: str
) -> None:
    await buried(jetstream, domain)
    async with sign_in(f"{domain}x", scopes=OPERATOR) as other, sign_in(domain, scopes=OPERATOR) as own:
        where = await place_of(own, domain)
        assert f"<td>{domain}</td>" not in (await other.get("/console/dead-letters")).text
        assert (await other.get(where)).status_code == 404
    async with sign_in(scopes=("adapters:read",)) as reader:
        refused = await reader.get("/console/dead-letters")
        assert refused.status_code == 403
        assert 'href="/console/dead-letters"' not in (await reader.get("/console/")).text
    async with sign_in(domain, scopes=OPERATOR) as own:
        assert 'href="/console/dead-letters"' in (await own.get("/console/")).text


async def test_services_that_are_unavailable_are_named_beside_the_letters_of_the_others(sign_in: SignIn) -> None:
    async with sign_in(scopes=OPERATOR) as ann:
        assert (
            "Unavailable, so that its letters are missing here: trainer"
            in (await ann.get("/console/dead-letters")).text
        )


async def test_a_trace_shows_its_events_in_order_to_those_who_reach_their_domain(
    registry: RunningService, upstream: Upstream, sign_in: SignIn, domain: str
) -> None:
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{'1' * 16}-01"}
    facts = [
        v1.UpdateRecommended(family="f", domain=domain, running="a", available="b"),
        v1.Rejected(adapter_id="a", family="f", domain=domain, by="ann"),
        v1.Rejected(adapter_id="b", family="f", domain=f"{domain}x", by="ann"),
    ]
    for event in facts:
        sealed = seal(event, service="registry", entity="e", trace=headers)
        await upstream.jetstream.publish(sealed.subject, sealed.body, headers=dict(sealed.headers))
        await asyncio.sleep(0.02)
    async with sign_in(domain) as ann:
        shown = (await ann.get(f"/console/trace/{trace}")).text
        assert shown.index("UpdateRecommended") < shown.index("Rejected")
        assert "2 events in 0.0" in shown
        assert "1 more concern domains that your token does not reach" in shown
        assert "No event of this trace" in (await ann.get(f"/console/trace/{secrets.token_hex(16)}")).text
        assert (await ann.get("/console/trace/x")).status_code == 422
