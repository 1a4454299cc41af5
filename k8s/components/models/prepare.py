"""Put the demonstration's two models, which packages carry, into a folder: python prepare.py /models."""

import shutil
import sys
from pathlib import Path

from fleet_cli.stack.models import embedding_model_path, prepare_base_model

EMBEDDING_MODEL_NAME = "all-MiniLM-L6-v2"


def main(folder: Path) -> None:
    """Idempotent; a folder that exists is whole, because it appears by one rename."""
    print(prepare_base_model(folder))
    target = folder / EMBEDDING_MODEL_NAME
    if not target.is_dir():
        partial = folder / f".{EMBEDDING_MODEL_NAME}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(embedding_model_path(), partial)
        partial.rename(target)
    print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
