-- migrate:up

-- Uploads without the rows of forgotten people: the digest of what is left where that is not upload_id any more, by
-- which erasures, and the file before, until its object is deleted. looked_at: when it was searched for people who were
-- forgotten before it came; null for not yet.
alter table uploads
    add column sha256 text,
    add column erased_by text[] not null default '{}',
    add column former_uri text,
    add column looked_at timestamptz;

-- migrate:down
alter table uploads drop column sha256, drop column erased_by, drop column former_uri, drop column looked_at;
