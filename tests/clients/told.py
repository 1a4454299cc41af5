"""What every client is asked, and how a script tells what came.

MODEL answers in text, CALLER calls functions. Neither need be trained: the form of what is compared is held by the
server, and `NAMES` is short so that any model comes to its end.
"""

import json
import os

QUESTION = os.environ["QUESTION"]
SAMPLING = {"temperature": 0, "max_tokens": int(os.environ["TOKENS"])}
CALLER = os.environ["CALLER"]
CALLING = {"temperature": 0, "max_tokens": 160}
"""Room for a call of which every character is a token, and not for two: it is to be the only one."""
NAMES = ("Ann", "Bob")
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "enum": list(NAMES)}},
    "required": ["name"],
    "additionalProperties": False,
}


def tell(**found: object) -> None:
    """The last line of output."""
    print(json.dumps(found))
