-- migrate:up

-- What the evaluator published of golden data sets, event by event. A revision counts once all its parts are there;
-- until then the one before it counts too.
create table golden_parts (
    dataset_id text not null,
    version text not null,
    revision bigint not null,
    part integer not null,
    parts integer not null,
    domain text not null,
    -- How its signatures were made; a trainer of another scheme goes by the digests alone.
    scheme text not null,
    received_at timestamptz not null default now(),
    primary key (dataset_id, version, revision, part)
);

-- Prints of golden prompts, never the prompts.
create table golden_digests (
    dataset_id text not null,
    version text not null,
    revision bigint not null,
    part integer not null,
    digest bytea not null,
    signature bytea not null,
    primary key (dataset_id, version, revision, part, digest),
    foreign key (dataset_id, version, revision, part) references golden_parts on delete cascade
);

-- migrate:down
drop table golden_digests;
drop table golden_parts;
