-- migrate:up

-- The content of data sets; the id is a digest of what the records say.
alter table datasets
    drop column query,
    drop column min_rating,
    add column kind text not null default 'completion',
    add column validation_samples integer not null default 0 check (validation_samples >= 0);
alter table datasets alter column kind drop default;

-- A version gives content a name; two recipes that make the same content each have their card.
create table dataset_versions (
    domain text not null,
    name text not null,
    version integer not null check (version > 0),
    dataset_id text not null references datasets,
    query text not null default '',
    min_rating double precision,
    card_uri text not null,
    card_sha256 text not null,
    card_bytes bigint not null,
    created_at timestamptz not null default now(),
    primary key (domain, name, version)
);
create index dataset_versions_by_dataset on dataset_versions (dataset_id, created_at desc);
create index dataset_versions_by_creation on dataset_versions (created_at desc);

create view versioned_datasets as
    select versions.*, datasets.kind, datasets.samples, datasets.validation_samples,
        datasets.uri, datasets.sha256, datasets.bytes
    from dataset_versions versions join datasets using (dataset_id);

-- Recipes that somebody asked to build, and what came of them.
create table dataset_builds (
    build_id text primary key,
    domain text not null,
    recipe jsonb not null,
    requested_by text not null,
    state text not null check (state in ('queued', 'running', 'succeeded', 'failed')),
    attempts integer not null default 0,
    dataset_id text references datasets,
    version integer,
    faults jsonb not null default '[]',
    created_at timestamptz not null default now(),
    finished_at timestamptz
);
create index dataset_builds_by_creation on dataset_builds (domain, created_at desc);

-- Files that recipes name; the id is the digest of the bytes.
create table uploads (
    domain text not null,
    upload_id text not null,
    filename text not null,
    format text not null,
    uri text not null,
    bytes bigint not null,
    created_at timestamptz not null default now(),
    primary key (domain, upload_id)
);

-- Ratings of answers to one prompt are compared; a prompt is too long for a tree.
create index samples_by_prompt on samples using hash (prompt);

-- migrate:down
drop index samples_by_prompt;
drop table uploads;
drop table dataset_builds;
drop view versioned_datasets;
drop table dataset_versions;
alter table datasets
    drop column validation_samples,
    drop column kind,
    add column query text not null default '',
    add column min_rating double precision;
