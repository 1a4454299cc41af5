"""SQL of recipes that read from elsewhere: one statement a function, connection first."""

from fleet_kit.db import Connection
from services.trainer.datasets.recipe import DataRecipe


async def recipes_with_own_sources(connection: Connection, domain: str) -> list[DataRecipe]:
    """The newest recipe of each name and set of sources in a domain ("*": in all) that reads what is its owners'."""
    rows = await connection.fetch(
        """
        select distinct on (domain, recipe->>'name', recipe->'sources') recipe from dataset_builds
        where ($1 = '*' or domain = $1) and exists (
            select from jsonb_array_elements(recipe->'sources') source
            where source->>'kind' in ('s3', 'sql', 'documents', 'folder')
        )
        order by domain, recipe->>'name', recipe->'sources', created_at desc
        """,
        domain,
    )
    return [DataRecipe.model_validate(row["recipe"]) for row in rows]
