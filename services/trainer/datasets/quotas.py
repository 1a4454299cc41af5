"""What one domain may store in uploads, and how many of its builds may be under way."""

from fleet_kit.db import Connection
from services.trainer import quotas
from services.trainer.datasets.settings import DatasetSettings


async def check_upload(connection: Connection, domain: str, more: int, settings: DatasetSettings) -> None:
    """Whether a domain may store an upload of `more` bytes; raises a 409 `Problem` that names the quota."""
    await quotas.lock(connection, "uploads", domain)
    row = await connection.fetchrow(
        "select count(*) as files, coalesce(sum(bytes), 0) as bytes from uploads where domain = $1", domain
    )
    files, held = (int(row["files"]), int(row["bytes"])) if row else (0, 0)
    if files >= settings.uploads_per_domain:
        raise quotas.full(domain, "UPLOADS_PER_DOMAIN", settings.uploads_per_domain, "uploads")
    if held + more > settings.upload_bytes_per_domain:
        limit = settings.upload_bytes_per_domain
        raise quotas.full(domain, "UPLOAD_BYTES_PER_DOMAIN", limit, "bytes of uploads")


async def check_build(connection: Connection, domain: str, settings: DatasetSettings) -> None:
    """Whether a domain may queue a build; raises a 429 `Problem` that names the quota."""
    await quotas.lock(connection, "builds", domain)
    held = await connection.fetchval(
        "select count(*) from dataset_builds where domain = $1 and state in ('queued', 'running')", domain
    )
    if held >= settings.open_builds_per_domain:
        limit = settings.open_builds_per_domain
        raise quotas.busy(domain, "OPEN_BUILDS_PER_DOMAIN", limit, "builds that wait or run")
