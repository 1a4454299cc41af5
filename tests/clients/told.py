"""What every client is asked, and how a script tells what came."""

import json
import os

QUESTION = os.environ["QUESTION"]
SAMPLING = {"temperature": 0, "max_tokens": int(os.environ["TOKENS"])}


def tell(**found: object) -> None:
    """The last line of output."""
    print(json.dumps(found))
