-- migrate:up

-- When a sample was recorded or last rated anew, by this database's clock: what is new to an adapter is counted by it.
alter table samples add column changed_at timestamptz not null default now();
update samples set changed_at = recorded_at;
create index samples_by_change on samples (domain, changed_at);
create index preferences_by_recording on preferences (domain, recorded_at);

-- What a domain's rules are; the body of PUT /v1/retraining/{domain}.
create table retraining_rules (
    domain text primary key,
    rules jsonb not null,
    set_by text not null,
    set_at timestamptz not null default now()
);

-- Which version answers for a family, as the registry published it; adapter_id is empty where none does.
create table active_adapters (
    family text primary key,
    domain text not null,
    adapter_id text not null,
    base_revision text not null default '',
    routing jsonb,
    revision bigint not null,
    activated_at timestamptz not null
);

-- Ratings of answers, without their text; of one answer the first rating counts.
create table adapter_ratings (
    generation_id text primary key,
    adapter_id text not null,
    rating double precision not null check (rating between 1 and 5),
    rated_at timestamptz not null default now()
);
create index adapter_ratings_in_order on adapter_ratings (adapter_id, rated_at, generation_id);

-- How far a recorded sample's prompt is from what an adapter was trained on; a deleted sample takes its distances along.
create table prompt_distances (
    adapter_id text not null,
    sample_id text not null references samples on delete cascade,
    distance double precision not null,
    recorded_at timestamptz not null,
    primary key (adapter_id, sample_id)
);
create index prompt_distances_of_sample on prompt_distances (sample_id);

-- A job that rules requested, and why.
create table retraining_firings (
    job_id text primary key,
    domain text not null,
    active_adapter text not null,
    triggers text[] not null,
    causes text[] not null,
    reason text not null,
    planned_steps integer not null,
    fired_at timestamptz not null
);
create index retraining_firings_by_time on retraining_firings (domain, fired_at desc);

-- One row a cause that was answered: the key keeps a second job for it out, whatever the code does.
create table retraining_causes (
    domain text not null,
    cause text not null,
    job_id text not null references retraining_firings,
    primary key (domain, cause)
);

-- Causes that led to no job, and why not.
create table retraining_suppressed (
    domain text not null,
    cause text not null,
    why text not null,
    trigger text not null,
    reason text not null,
    detail text not null,
    times integer not null default 1,
    first_at timestamptz not null,
    last_at timestamptz not null,
    primary key (domain, cause, why)
);

-- migrate:down
drop table retraining_suppressed;
drop table retraining_causes;
drop table retraining_firings;
drop table prompt_distances;
drop table adapter_ratings;
drop table active_adapters;
drop table retraining_rules;
drop index preferences_by_recording;
drop index samples_by_change;
alter table samples drop column changed_at;
