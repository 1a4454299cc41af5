"""SQL of the live records that feedback on answers makes: one statement a function, connection first."""

from collections.abc import Iterable
from datetime import datetime

from fleet_kit.db import Connection
from services.trainer.datasets.answers.answer import RecordedAnswer
from services.trainer.datasets.answers.derivation import CORRECTED, Derived, prompt_of
from services.trainer.datasets.dataset import Preference, Ranking, Sample


async def put_samples(connection: Connection, samples: Iterable[Sample], rated_at: datetime) -> None:
    """Add what is new; a sample that is there takes the rating, which is that of everybody who rated its answer."""
    await connection.executemany(
        """
        insert into samples (
            sample_id, domain, prompt, completion, rating, rated_at, origin, source_id, context, rater
        ) values ($1, $2, $3, $4, $5, case when $5::float8 is not null then $6::timestamptz end, $7, $8, $9, $10)
        on conflict (sample_id) do update
            set rating = excluded.rating, rated_at = excluded.rated_at, changed_at = now()
        where excluded.rating is not null and (samples.rated_at is null or samples.source_id = excluded.source_id
            or samples.rated_at < excluded.rated_at)
        """,
        [
            (
                one.sample_id, one.domain, one.prompt, one.completion, one.rating, rated_at, one.origin, one.source_id,
                one.context, one.rater,
            )
            for one in samples
        ],
    )  # fmt: skip


async def put_preferences(connection: Connection, preferences: Iterable[Preference]) -> None:
    """Add what is new."""
    await connection.executemany(
        """
        insert into preferences (
            preference_id, domain, prompt, chosen, rejected, origin, context, source_id, rater
        ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing
        """,
        [
            (
                one.preference_id, one.domain, one.prompt, one.chosen, one.rejected, one.origin, one.context,
                one.source_id, one.rater,
            )
            for one in preferences
        ],
    )  # fmt: skip


async def remove_former_correction(connection: Connection, generation_id: str, rater: str, now: Derived) -> None:
    """Remove what an earlier correction of one rater made, where it is not what today's makes."""
    await connection.execute(
        """
        with outdated as (
            delete from preferences
            where source_id = $1 and rater = $2 and origin = $3 and preference_id <> all($5::text[])
        )
        delete from samples where source_id = $1 and rater = $2 and origin = $3 and sample_id <> all($4::text[])
        """,
        generation_id,
        rater,
        CORRECTED,
        [one.sample_id for one in now.samples],
        [one.preference_id for one in now.preferences],
    )


async def remove_preference(connection: Connection, opposite: Preference) -> None:
    """Remove one that its rater takes back, where it is theirs."""
    await connection.execute(
        "delete from preferences where preference_id = $1 and source_id = $2 and rater = $3",
        opposite.preference_id,
        opposite.source_id,
        opposite.rater,
    )


async def remove_ranking(connection: Connection, answer: RecordedAnswer, rater: str) -> None:
    """Remove one rater's order of the answers to a conversation: it is made anew."""
    context, prompt = prompt_of(answer.turns)
    former = Ranking(answer.domain, prompt, (), (), context, rater)
    await connection.execute("delete from rankings where ranking_id = $1", former.ranking_id)


async def add_ranking(connection: Connection, ranking: Ranking) -> None:
    """Keep one rater's order of the answers to a conversation."""
    await connection.execute(
        """
        insert into rankings (ranking_id, domain, prompt, context, completions, generation_ids, rater)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        ranking.ranking_id,
        ranking.domain,
        ranking.prompt,
        ranking.context,
        ranking.completions,
        ranking.generation_ids,
        ranking.rater,
    )
