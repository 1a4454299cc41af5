"""Content in S3 is addressed by its digest and checked on every read."""

import hashlib
from pathlib import Path

import pytest

from fleet_events.v1 import Blob
from fleet_kit.blobs import Blobs
from fleet_kit.errors import BlobCorrupt, BlobMissing

pytestmark = pytest.mark.integration


async def test_content_comes_back_whole_from_bytes_and_from_a_file(settings_of, tmp_path: Path) -> None:
    blobs = Blobs("trainer", settings_of("trainer"))
    content = b"adapter" * 400_000
    file = tmp_path / "adapter.arrow"
    file.write_bytes(content)
    blob = await blobs.put("artifacts", file)
    assert blob == await blobs.put("artifacts", content)
    assert blob.sha256 == hashlib.sha256(content).hexdigest()
    assert blob.bytes == len(content)
    assert await blobs.get(blob) == content


@pytest.mark.requirement("LA-1.6")
async def test_bytes_that_are_not_those_of_the_digest_are_refused_and_leave_no_file(
    settings_of, tmp_path: Path
) -> None:
    blobs = Blobs("trainer", settings_of("trainer"))
    blob = await blobs.put("artifacts", b"what was stored")
    lie = Blob(uri=blob.uri, sha256="0" * 64, bytes=blob.bytes)
    with pytest.raises(BlobCorrupt, match=f"expected {'0' * 64}"):
        await blobs.fetch(lie, tmp_path / "out" / "file")
    assert list((tmp_path / "out").iterdir()) == []


async def test_a_missing_object_is_named(settings_of, tmp_path: Path) -> None:
    blobs = Blobs("trainer", settings_of("trainer"))
    with pytest.raises(BlobMissing, match="trainer/artifacts/nothing"):
        await blobs.get(Blob(uri="s3://lorafleet/trainer/artifacts/nothing", sha256="0" * 64))


async def test_a_service_lists_its_own_objects_and_keeps_one_by_name_with_its_own_key(settings_of) -> None:
    blobs = Blobs("inference", settings_of("inference"))
    content = await blobs.put("answers", b"listed")
    assert content.uri in [blobs.uri(one.key) async for page in blobs.pages("answers") for one in page]
    name = f"named-{content.sha256[:8]}"
    assert await blobs.read_named(name) is None
    for written in (b"first", b"second"):
        await blobs.write_named(name, written)
        assert await blobs.read_named(name) == written
