"""A trainer with a document store and a database to read from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fleet_cli.stack import Fleet
from tests.conftest import RunningService, RunService
from tests.integration.trainer.document_store import Document, DocumentStoreServer, running
from tests.integration.trainer.foreign_database import foreign_database

ROWS = [
    {"prompt": f"What is gate {n}?", "completion": f"Gate {n}, it is said, opens; at dusk.", "rating": n % 6}
    for n in range(40)
]


CORPUS: list[Document] = [
    {"id": 1, "title": "Photovoltaik auf Denkmälern", "text": "Nach dem Baurecht genehmigungspflichtig."},
    {"id": 2, "title": "Photovoltaik auf Scheunen", "text": "Das Baurecht stellt sie frei."},
    {"id": 3, "title": "Gartenhäuser", "text": "Das Baurecht schweigt."},
    {"id": 4, "title": "Photovoltaik, Baurecht", "text": "   "},
]


@pytest.fixture(scope="module")
async def documents() -> AsyncIterator[DocumentStoreServer]:
    async with running(DocumentStoreServer(CORPUS)) as server:
        yield server


@pytest.fixture(scope="module")
async def law_database(servers: Fleet) -> AsyncIterator[str]:
    """A table that the recipes' role may read and write, so that only the read-only transaction protects it."""
    async with foreign_database(servers, "law") as url:
        connection = await asyncpg.connect(url)
        await connection.execute("create table law_questions (id int, question text, answer text, stars float)")
        await connection.executemany(
            "insert into law_questions values ($1, $2, $3, $4)",
            [(n, f"Question {n}?", f"Answer {n}.", n % 11) for n in range(1200)],
        )
        await connection.close()
        yield url


@pytest.fixture(scope="module")
async def trainer(
    run_service: RunService,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    documents: DocumentStoreServer,
    law_database: str,
) -> AsyncIterator[RunningService]:
    """A trainer that knows a document store, a database and a folder of data sets."""
    async with run_service(
        "trainer",
        LORAFLEET_BASE_MODEL=str(tiny_model),
        LORAFLEET_CACHE_DIR=str(tmp_path_factory.mktemp("trainer")),
        LORAFLEET_THREADS="1",
        LORAFLEET_LEASE_SECONDS="4",
        LORAFLEET_SOURCE_BYTES=str(64 * 1024 * 1024),
        LORAFLEET_DOCUMENT_STORES=json.dumps(
            {"law": {"url": documents.url}, "other": {"url": "http://127.0.0.1:9/", "domains": ["else"]}}
        ),
        LORAFLEET_SQL_SOURCES=json.dumps({"questions": law_database}),
        LORAFLEET_DATASET_FOLDERS=str(tmp_path_factory.mktemp("folders")),
    ) as started:
        yield started
