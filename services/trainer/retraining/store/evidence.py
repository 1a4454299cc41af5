"""SQL of what rules look at: active versions, ratings, distances, and how many samples are usable and new."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet_events import v1
from fleet_kit.db import Connection
from services.trainer.datasets.records import Kind
from services.trainer.retraining.situation import ActiveVersion, Observed


@dataclass(frozen=True)
class KnownActive:
    """The active version of a family. `known`: whether what was registered under its id has arrived too."""

    version: ActiveVersion
    routing: v1.RoutingProfile | None
    known: bool


@dataclass(frozen=True)
class UnmeasuredPrompt:
    """The prompt of a recorded sample or answer that has no distance from an adapter yet."""

    of_answer: bool
    record_id: str
    prompt: str
    recorded_at: datetime


async def save_activation(connection: Connection, event: v1.AdapterActivated, at: datetime) -> None:
    """A version answers for its family, unless something newer is known of that."""
    adapter = event.adapter
    await connection.execute(
        """
        insert into active_adapters as held (family, domain, adapter_id, base_revision, routing, revision, activated_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (family) do update set adapter_id = $3, base_revision = $4, routing = $5, revision = $6,
            activated_at = $7
        where held.revision < $6
        """,
        adapter.family,
        adapter.domain,
        adapter.adapter_id,
        adapter.base_model.revision,
        adapter.routing.model_dump(mode="json") if adapter.routing else None,
        event.revision,
        at,
    )


async def save_deactivation(connection: Connection, event: v1.AdapterDeactivated, at: datetime) -> None:
    """No version answers for the family, unless something newer is known of that."""
    await connection.execute(
        """
        insert into active_adapters as held (family, domain, adapter_id, revision, activated_at)
        values ($1, $2, '', $3, $4)
        on conflict (family) do update set adapter_id = '', base_revision = '', routing = null, revision = $3,
            activated_at = $4
        where held.revision < $3
        """,
        event.family,
        event.domain,
        event.revision,
        at,
    )


async def find_active(connection: Connection, family: str) -> KnownActive | None:
    """The version that answers for a family, with when its training data was frozen; None where none does."""
    row = await connection.fetchrow(
        """
        select active.*, adapters.job_id is not null as known, jobs.job_id is not null as trained_here, (
            select max(created_at) from dataset_versions version
            where version.dataset_id = jobs.dataset_id and version.domain = active.domain
              and version.created_at <= coalesce(jobs.finished_at, now())
        ) as learned_until
        from active_adapters active
        left join adapters on adapters.adapter_id = active.adapter_id
        left join jobs on jobs.job_id = adapters.job_id and jobs.completed is not null
        where active.family = $1 and active.adapter_id <> ''
        """,
        family,
    )
    if row is None:
        return None
    version = ActiveVersion(
        adapter_id=row["adapter_id"],
        base_revision=row["base_revision"],
        learned_until=row["learned_until"] or row["activated_at"],
        trained_here=row["trained_here"],
    )
    routing = v1.RoutingProfile.model_validate(row["routing"]) if row["routing"] else None
    return KnownActive(version, routing, row["known"])


async def is_deactivated(connection: Connection, family: str) -> bool:
    """Whether a family had an active version and has none now."""
    return bool(
        await connection.fetchval(
            "select exists (select from active_adapters where family = $1 and adapter_id = '')", family
        )
    )


async def erasures(connection: Connection, family: str, active: str) -> dict[str, bool]:
    """Erasures of records that the active version learned from; where none is active, those that retired one.

    Each with whether it asked for the version to be replaced.
    """
    rows = await connection.fetch(
        """
        select erasure_id, replace from erasures
        where $2 <> '' and $2 = any(adapters)
           or $2 = '' and retire and exists (
               select from active_adapters where family = $1 and adapter_id = ''
           ) and exists (
               select from adapters known
               where known.adapter_id = any(erasures.adapters) and known.registered->'adapter'->>'family' = $1
           )
        order by requested_at, erasure_id
        """,
        family,
        active,
    )
    return {row["erasure_id"]: row["replace"] for row in rows}


async def add_rating(connection: Connection, event: v1.FeedbackRecorded) -> None:
    """Keep the first rating of an answer that an adapter gave."""
    await connection.execute(
        """
        insert into adapter_ratings (generation_id, adapter_id, rating) values ($1, $2, $3) on conflict do nothing
        """,
        event.generation_id,
        event.adapter_id,
        float(event.rating),
    )


async def ratings(connection: Connection, adapter_id: str, first: int, since: datetime | None) -> tuple[Observed, ...]:
    """Ratings of a version in order: its first ones, and those after a time (None: all)."""
    rows = await connection.fetch(
        """
        select rated_at, rating from (
            select *, row_number() over (order by rated_at, generation_id) as place
            from adapter_ratings where adapter_id = $1
        ) placed
        where place <= $2 or $3::timestamptz is null or rated_at > $3 order by place
        """,
        adapter_id,
        first,
        since,
    )
    return tuple(Observed(row["rated_at"], row["rating"]) for row in rows)


async def unmeasured_prompts(
    connection: Connection, domain: str, adapter_id: str, since: datetime, limit: int
) -> list[UnmeasuredPrompt]:
    """Prompts of answers and samples recorded after a time that have no distance from a version yet, oldest first.

    An answer is recorded only where its domain's policy permits it, with feedback or without. Of answers to one
    conversation and of samples with one prompt the first alone counts, and a sample that was made of an answer counts
    as that answer.
    """
    rows = await connection.fetch(
        """
        select true as of_answer, generation_id as record_id, turns->-1->>1 as prompt, recorded_at from answers fresh
        where domain = $1 and recorded_at > $3 and turns->-1->>0 = 'user' and turns->-1->>1 ~ '\\S'
          and not exists (
            select from answer_distances where adapter_id = $2 and generation_id = fresh.generation_id
          )
          and not exists (
            select from answers earlier where earlier.prompt_key = fresh.prompt_key and earlier.domain = $1
              and (earlier.recorded_at, earlier.generation_id) < (fresh.recorded_at, fresh.generation_id)
          )
          and not exists (
            select from samples join prompt_distances using (sample_id)
            where samples.source_id = fresh.generation_id and adapter_id = $2
          )
        union all
        select false, sample_id, prompt, recorded_at from samples fresh
        where domain = $1 and recorded_at > $3
          and not exists (select from prompt_distances where adapter_id = $2 and sample_id = fresh.sample_id)
          and not exists (
            select from samples earlier where earlier.domain = $1 and earlier.prompt = fresh.prompt
              and (earlier.recorded_at, earlier.sample_id) < (fresh.recorded_at, fresh.sample_id)
          )
          and not exists (
            select from answers where generation_id = fresh.source_id and fresh.source_id <> ''
              and turns->-1->>0 = 'user'
          )
        order by recorded_at, record_id limit $4
        """,
        domain,
        adapter_id,
        since,
        limit,
    )
    return [UnmeasuredPrompt(**dict(row)) for row in rows]


async def add_sample_distances(
    connection: Connection, adapter_id: str, measured: Sequence[tuple[UnmeasuredPrompt, float]]
) -> None:
    """Keep distances of samples' prompts from a version's training prompts; of a sample that is gone by now none."""
    await connection.execute(
        """
        insert into prompt_distances (adapter_id, sample_id, distance, recorded_at)
        select $1, given.sample_id, given.distance, samples.recorded_at
        from unnest($2::text[], $3::float8[]) as given (sample_id, distance) join samples using (sample_id)
        on conflict do nothing
        """,
        adapter_id,
        [one.record_id for one, _ in measured if not one.of_answer],
        [distance for one, distance in measured if not one.of_answer],
    )


async def add_answer_distances(
    connection: Connection, adapter_id: str, measured: Sequence[tuple[UnmeasuredPrompt, float]]
) -> None:
    """The same of answers' prompts."""
    await connection.execute(
        """
        insert into answer_distances (adapter_id, generation_id, distance, recorded_at)
        select $1, given.generation_id, given.distance, answers.recorded_at
        from unnest($2::text[], $3::float8[]) as given (generation_id, distance) join answers using (generation_id)
        on conflict do nothing
        """,
        adapter_id,
        [one.record_id for one, _ in measured if one.of_answer],
        [distance for one, distance in measured if one.of_answer],
    )


async def distances(connection: Connection, adapter_id: str, since: datetime, most: int) -> tuple[Observed, ...]:
    """The newest distances of prompts recorded after a time, in order."""
    rows = await connection.fetch(
        """
        select recorded_at, distance from (
            select recorded_at, distance, sample_id as record_id from prompt_distances
            where adapter_id = $1 and recorded_at > $2
            union all
            select recorded_at, distance, generation_id from answer_distances
            where adapter_id = $1 and recorded_at > $2
            order by recorded_at desc, record_id desc limit $3
        ) newest
        order by recorded_at, record_id
        """,
        adapter_id,
        since,
        most,
    )
    return tuple(Observed(row["recorded_at"], row["distance"]) for row in rows)


async def count_usable(
    connection: Connection, kind: Kind, request: v1.TrainingRequested, since: datetime | None, until: datetime
) -> int:
    """Live records that a request would be trained on, those that changed in (since, until] where since is given."""
    found = await connection.fetchval(_COUNTS[kind], request.domain, request.query, request.min_rating, since, until)
    return int(found)


# What `datasets/store/live.py` selects for each kind, counted.
_COUNTS = {
    Kind.COMPLETION: """
        select count(*) from samples
        where domain = $1
          and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
          and ($3::float8 is null or rating is null or rating >= $3)
          and ($4::timestamptz is null or changed_at > $4) and changed_at <= $5
        """,
    Kind.PREFERENCE: """
        select (
            select count(*) from preferences
            where domain = $1 and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
              and ($4::timestamptz is null or recorded_at > $4) and recorded_at <= $5
        ) + (
            select count(*) from samples better
            join samples worse on worse.domain = better.domain and worse.prompt = better.prompt
                and worse.context = better.context and worse.rating < better.rating
            where better.domain = $1
              and ($2 = '' or better.document @@ (select websearch_to_tsquery('simple', $2)))
              and ($3::float8 is null or better.rating >= $3)
              and ($4::timestamptz is null or greatest(better.changed_at, worse.changed_at) > $4)
              and greatest(better.changed_at, worse.changed_at) <= $5
        )
        """,
    Kind.RANKING: """
        select count(*) from (
            select prompt from samples where domain = $1 and rating is not null group by context, prompt
            having count(distinct rating) >= 2
               and ($2 = '' or bool_or(document @@ (select websearch_to_tsquery('simple', $2))))
               and ($3::float8 is null or max(rating) >= $3)
               and ($4::timestamptz is null or max(changed_at) > $4) and max(changed_at) <= $5
            union all
            select prompt from rankings
            where domain = $1 and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
               and ($4::timestamptz is null or recorded_at > $4) and recorded_at <= $5
        ) ranked
        """,
}
