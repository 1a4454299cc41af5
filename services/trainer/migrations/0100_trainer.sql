-- migrate:up

-- Prompt and completion pairs as they were recorded; the id is the digest of domain, prompt and completion.
create table samples (
    sample_id text primary key,
    domain text not null,
    prompt text not null,
    completion text not null,
    rating double precision check (rating between 0 and 5),
    rated_at timestamptz,
    origin text not null default '',
    source_id text not null default '',
    recorded_at timestamptz not null default now(),
    -- 'simple' neither stems nor drops words: the samples may be of any language.
    document tsvector not null generated always as (
        to_tsvector('simple'::regconfig, prompt || ' ' || completion)
    ) stored
);
create index samples_by_domain on samples (domain, sample_id);
create index samples_document on samples using gin (document);

create table preferences (
    preference_id text primary key,
    domain text not null,
    prompt text not null,
    chosen text not null,
    rejected text not null,
    origin text not null default '',
    recorded_at timestamptz not null default now(),
    document tsvector not null generated always as (
        to_tsvector('simple'::regconfig, prompt || ' ' || chosen)
    ) stored
);
create index preferences_by_domain on preferences (domain, preference_id);
create index preferences_document on preferences using gin (document);

-- Immutable sets frozen from samples; the id is the digest of the canonical JSONL.
create table datasets (
    dataset_id text primary key,
    domain text not null,
    query text not null,
    min_rating double precision,
    samples integer not null check (samples > 0),
    uri text not null,
    sha256 text not null,
    bytes bigint not null,
    created_at timestamptz not null default now()
);
create index datasets_by_domain on datasets (domain, created_at desc);

create table jobs (
    job_id text primary key,
    domain text not null,
    state text not null check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    request jsonb not null,
    dataset_id text references datasets,
    base_name text not null default '',
    base_revision text not null default '',
    attempts integer not null default 0,
    -- Attempts since the last stored checkpoint: a job that only ever crashes ends.
    stalled integer not null default 0,
    step integer not null default 0,
    total_steps integer not null default 0,
    loss double precision,
    error text not null default '',
    cancel_by text not null default '',
    cancel_reason text not null default '',
    -- The TrainingCompleted that was said.
    completed jsonb,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz
);
create index jobs_by_creation on jobs (created_at desc);

-- One row per optimizer step; a resumed worker writes the same steps again.
create table steps (
    job_id text not null references jobs,
    step integer not null,
    epoch double precision not null,
    loss double precision not null,
    learning_rate double precision not null,
    gradient_norm double precision not null,
    tokens integer not null,
    seconds double precision not null,
    recorded_at timestamptz not null default now(),
    primary key (job_id, step)
);

create table checkpoints (
    job_id text not null references jobs,
    step integer not null,
    epoch double precision not null,
    uri text not null,
    sha256 text not null,
    bytes bigint not null,
    created_at timestamptz not null default now(),
    primary key (job_id, step)
);

-- migrate:down
drop table checkpoints;
drop table steps;
drop table jobs;
drop table datasets;
drop table preferences;
drop table samples;
