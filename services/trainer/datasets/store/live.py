"""SQL of the live records of a domain: one statement a function, connection first. Queries have the form of web
searches: words that must all occur, "phrases", or, -not. Each is read in a query of its own, once: a generic plan would
read it again for every row."""

from collections.abc import AsyncIterator
from typing import cast

import asyncpg

from fleet_kit.db import Connection
from services.trainer.datasets.records import Kind, Message, Record, Role, prompt_messages


async def select_completions(
    connection: Connection, domain: str, query: str, min_rating: float | None
) -> AsyncIterator[Record]:
    """Samples that match and are not rated below the floor."""
    async for row in connection.cursor(
        """
        select context, prompt, completion, rating, origin, source_id,
            subjects_of('sample', array[sample_id], array[source_id]) as subjects
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
        select context, prompt, completion, rating, origin, source_id,
            subjects_of('sample', array[sample_id], array[source_id]) as subjects
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
        select context, prompt, chosen, rejected, origin, source_id,
            subjects_of('preference', array[preference_id], array[source_id]) as subjects
        from preferences
        where domain = $1 and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
        union all
        select better.context, better.prompt, better.completion, worse.completion, 'ratings', '', subjects_of(
            'sample', array[better.sample_id, worse.sample_id], array[better.source_id, worse.source_id]
        )
        from samples better
        join samples worse on worse.domain = better.domain and worse.prompt = better.prompt
            and worse.context = better.context and worse.rating < better.rating
        where better.domain = $1
          and ($2 = '' or better.document @@ (select websearch_to_tsquery('simple', $2)))
          and ($3::float8 is null or better.rating >= $3)
        """,
        domain,
        query,
        min_rating,
        prefetch=500,
    ):
        completions = (row["chosen"], row["rejected"])
        yield Record(
            Kind.PREFERENCE,
            _prompt(row),
            completions,
            origin=row["origin"],
            source_id=row["source_id"],
            subjects=tuple(row["subjects"]),
        )


async def select_rankings(
    connection: Connection, domain: str, query: str, min_rating: float | None
) -> AsyncIterator[Record]:
    """Prompts with two or more differently rated samples of which one matches; of equal ratings one sample counts. The
    floor is required of the best one. And orders of three or more answers that people told by their preferences.
    """
    async for row in connection.cursor(
        """
        with apart as (
            select distinct on (context, prompt, rating)
                context, prompt, completion, rating, document, sample_id, source_id
            from samples
            where domain = $1 and rating is not null order by context, prompt, rating, sample_id
        )
        select context, prompt, array_agg(completion order by rating desc) as completions, 'ratings' as origin,
            subjects_of('sample', array_agg(sample_id), array_agg(source_id)) as subjects
        from apart group by context, prompt
        having count(*) >= 2
           and ($2 = '' or bool_or(document @@ (select websearch_to_tsquery('simple', $2))))
           and ($3::float8 is null or max(rating) >= $3)
        union all
        select context, prompt, completions, 'preferred', subjects_of('ranking', array[]::text[], generation_ids)
        from rankings
        where domain = $1 and ($2 = '' or document @@ (select websearch_to_tsquery('simple', $2)))
        """,
        domain,
        query,
        min_rating,
        prefetch=500,
    ):
        yield Record(
            Kind.RANKING,
            _prompt(row),
            tuple(row["completions"]),
            origin=row["origin"],
            subjects=tuple(row["subjects"]),
        )


def _prompt(row: asyncpg.Record) -> tuple[Message, ...]:
    """What precedes the last question, as context alone, and the question."""
    context = (Message(cast("Role", role), content) for role, content in row["context"])
    return (*context, *prompt_messages(row["prompt"]))


def _rated(kind: Kind, row: asyncpg.Record) -> Record:
    return Record(
        kind,
        _prompt(row),
        (row["completion"],),
        rating=row["rating"],
        origin=row["origin"],
        source_id=row["source_id"],
        subjects=tuple(row["subjects"]),
    )
