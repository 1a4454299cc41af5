"""Counts the records of a data set's file that are about a person: `… -m services.trainer.datasets.worker.contains`.

Its arguments are the keyed digest of the person's name, and the file. A process of its own, because reading Parquet
takes a library of 100 MB that the service shall not load.
"""

import sys
from pathlib import Path


def count(path: Path, subject: str) -> int:
    """Records of a data set's file with this keyed digest among their subjects."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    if "subjects" not in file.schema_arrow.names:
        return 0  # frozen before records had subjects
    found = 0
    for batch in file.iter_batches(columns=["subjects"]):
        found += sum(subject in (subjects or ()) for subjects in batch.column(0).to_pylist())
    return found


if __name__ == "__main__":
    sys.stdout.write(str(count(Path(sys.argv[2]), sys.argv[1])))
