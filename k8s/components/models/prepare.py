"""Put the demonstration's two models, which packages carry, into a folder: python prepare.py /models.

Every base model in it gets a description of its layers, which the registry reads: its image has no torch.
"""

import shutil
import sys
from pathlib import Path

from fleet_cli.stack.models import embedding_model_path, prepare_base_model
from lora_core.description import write_description
from lora_core.errors import AdapterNotFound, UnsupportedBaseModel

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
    describe_all(folder)


def describe_all(folder: Path) -> None:
    """Describe the layers of each base model; a folder that holds none is left alone."""
    for model in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            print(write_description(model))
        except (AdapterNotFound, UnsupportedBaseModel) as error:
            print(f"not described: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
