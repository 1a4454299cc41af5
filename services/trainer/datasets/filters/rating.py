"""A floor for ratings."""

import numpy as np

from services.trainer.datasets.filters.recipe import RatingFilter
from services.trainer.datasets.filters.rows import Rows
from services.trainer.datasets.filters.verdict import Verdict, first_reason


class Rating:
    """Drops what is rated too low."""

    name = "rating"

    def __init__(self, knobs: RatingFilter) -> None:
        self._knobs = knobs

    def judge(self, rows: Rows) -> Verdict:
        rating = rows.batch.column("rating").to_numpy(zero_copy_only=False)
        floor, unrated = self._knobs.min_rating, np.isnan(rating)
        kinds, labels = first_reason(
            len(rows),
            [
                (f"rated below {floor:g}", rating < floor),
                ("not rated", unrated & (self._knobs.unrated == "drop")),
            ],
        )

        def explain(row: int) -> str:
            found = "none" if unrated[row] else f"{rating[row]:g}"
            return f"rating: {found}, at least {floor:g} is required"

        return Verdict(kinds, labels, explain)
