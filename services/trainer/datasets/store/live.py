"""SQL of the live records of a domain: one statement a function, connection first. Queries have the form of web
searches: words that must all occur, "phrases", or, -not. Each is read in a query of its own, once: a generic plan would
read it again for every row."""

from collections.abc import AsyncIterator

import asyncpg

from fleet_kit.db import Connection
from services.trainer.datasets.records import Kind, Record, prompt_messages


async def select_completions(
    connection: Connection, domain: str, query: str, min_rating: float | None
) -> AsyncIterator[Record]:
    """Samples that match and are not rated below the floor."""
    async for row in connection.cursor(
        """
        select prompt, completion, rating, origin, source_id, array(
            select distinct subject from subject_records where kind = 'sample' and record_id = sample_id order by 1
        ) as subjects
        from samples
        where domain = $1
          and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
          and ($3::float8 is null or rating is null or rating >= $3)
        """,
        domain,
        query,
        min_rating,
        prefetch=500,
    ):
        yield _rated(Kind.COMPLETION, row)


async def select_rated(
    connection: Connection, domain: str, query: str, min_rating: float | None
) -> AsyncIterator[Record]:
    """Rated samples that match, from the floor on."""
    async for row in connection.cursor(
        """
        select prompt, completion, rating, origin, source_id, array(
            select distinct subject from subject_records where kind = 'sample' and record_id = sample_id order by 1
        ) as subjects
        from samples
        where domain = $1
          and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
          and rating is not null and ($3::float8 is null or rating >= $3)
        """,
        domain,
        query,
        min_rating,
        prefetch=500,
    ):
        yield _rated(Kind.RATED, row)


async def select_preferences(
    connection: Connection, domain: str, query: str, min_rating: float | None
) -> AsyncIterator[Record]:
    """Recorded pairs that match, and each two differently rated samples of one prompt whose better one matches.

    A recorded pair has no rating, so the floor does not concern it.
    """
    async for row in connection.cursor(
        """
        select prompt, chosen, rejected, origin, array(
            select distinct subject from subject_records
            where kind = 'preference' and record_id = preference_id order by 1
        ) as subjects
        from preferences
        where domain = $1 and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
        union all
        select better.prompt, better.completion, worse.completion, 'ratings', array(
            select distinct subject from subject_records
            where kind = 'sample' and record_id in (better.sample_id, worse.sample_id) order by 1
        )
        from samples better
        join samples worse on worse.domain = better.domain and worse.prompt = better.prompt
            and worse.rating < better.rating
        where better.domain = $1
          and ($2 = '' or better.document @@ (select websearch_to_tsquery('simple', $2)))
          and ($3::float8 is null or better.rating >= $3)
        """,
        domain,
        query,
        min_rating,
        prefetch=500,
    ):
        yield Record(
            Kind.PREFERENCE,
            prompt_messages(row["prompt"]),
            (row["chosen"], row["rejected"]),
            origin=row["origin"],
            subjects=tuple(row["subjects"]),
        )


async def select_rankings(
    connection: Connection, domain: str, query: str, min_rating: float | None
) -> AsyncIterator[Record]:
    """Prompts with two or more differently rated samples of which one matches; of equal ratings one sample counts.

    The floor is required of the best one.
    """
    async for row in connection.cursor(
        """
        with apart as (
            select distinct on (prompt, rating) prompt, completion, rating, document, sample_id from samples
            where domain = $1 and rating is not null order by prompt, rating, sample_id
        ), ranked as (
            select prompt, array_agg(completion order by rating desc) as completions, array_agg(sample_id) as ids
            from apart group by prompt
            having count(*) >= 2
               and ($2 = '' or bool_or(document @@ (select websearch_to_tsquery('simple', $2))))
               and ($3::float8 is null or max(rating) >= $3)
        )
        select prompt, completions, array(
            select distinct subject from subject_records where kind = 'sample' and record_id = any(ids) order by 1
        ) as subjects
        from ranked
        """,
        domain,
        query,
        min_rating,
        prefetch=500,
    ):
        yield Record(
            Kind.RANKING,
            prompt_messages(row["prompt"]),
            tuple(row["completions"]),
            origin="ratings",
            subjects=tuple(row["subjects"]),
        )


def _rated(kind: Kind, row: asyncpg.Record) -> Record:
    return Record(
        kind,
        prompt_messages(row["prompt"]),
        (row["completion"],),
        rating=row["rating"],
        origin=row["origin"],
        source_id=row["source_id"],
        subjects=tuple(row["subjects"]),
    )
