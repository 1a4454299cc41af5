"""Rows of times."""

from benchmarks.report import Row, Samples


def milliseconds(samples: Samples) -> Samples:
    return Samples(tuple(1000 * value for value in samples.values))


def timing(
    what: str, ours: Samples, peers: dict[str, Samples], *, limit: float | None, most: float | None, note: str = ""
) -> Row:
    """A row of milliseconds out of seconds. limit: seconds. most: the required bound, ms."""
    mine = milliseconds(ours)
    beside = {name: milliseconds(samples).median for name, samples in peers.items()}
    nearness = f"{ours.median / limit:.2f} × the limit" if limit else ""
    return Row(
        what=what,
        unit="ms",
        ours=mine.median,
        peers=beside,
        ratio=mine.median / next(iter(beside.values())) if beside else None,
        limit=None if limit is None else 1000 * limit,
        ask=None if most is None else f"at most {most:g}",
        met=None if most is None else mine.median <= most,
        n=len(ours.values),
        spread=mine.spread,
        note="; ".join(filter(None, (nearness, note))),
    )
