-- migrate:up

-- A version of a golden data set. Once an evaluation has used it, it is frozen: its digest is set and nothing changes.
create table golden_dataset (
    dataset_id text not null,
    version text not null,
    ordinal bigint generated always as identity unique,
    domain text not null,
    description text not null default '',
    context_use text not null default 'note' check (context_use in ('note', 'prompt')),
    created_by text not null,
    created_at timestamptz not null default now(),
    frozen_at timestamptz,
    sha256 text check (sha256 ~ '^[0-9a-f]{64}$'),
    primary key (dataset_id, version),
    check ((frozen_at is null) = (sha256 is null))
);
create index golden_dataset_domain on golden_dataset (domain, ordinal desc);

create table golden_sample (
    dataset_id text not null,
    version text not null,
    sample_id text not null,
    position int not null,
    prompt text not null,
    expected_output text not null,
    expected_score double precision not null check (expected_score between 0 and 1),
    difficulty text not null check (difficulty in ('easy', 'medium', 'hard')),
    criteria jsonb not null,
    context text not null,
    primary key (dataset_id, version, sample_id),
    foreign key (dataset_id, version) references golden_dataset
);

-- The last line of defence of what the domain already refuses.
create function refuse_frozen() returns trigger language plpgsql as $$
begin
    if exists (
        select from golden_dataset g
        where g.dataset_id = coalesce(new.dataset_id, old.dataset_id)
            and g.version = coalesce(new.version, old.version) and g.frozen_at is not null
    ) then
        raise exception 'golden data set % version % is frozen', coalesce(new.dataset_id, old.dataset_id),
            coalesce(new.version, old.version) using errcode = 'integrity_constraint_violation';
    end if;
    return coalesce(new, old);
end $$;
create trigger golden_sample_frozen before insert or update or delete on golden_sample
    for each row execute function refuse_frozen();

-- Versions that registry has told us of: what their answers must be signed with.
create table candidate (
    adapter_id text primary key,
    family text not null,
    domain text not null,
    artifact_sha256 text not null,
    base_model text not null,
    base_revision text not null
);

-- Each family's active version: what a new one is compared with. Older revisions never overwrite newer ones.
create table active_adapter (
    family text primary key,
    adapter_id text not null,
    revision bigint not null
);

create table evaluation (
    evaluation_id text primary key,
    adapter_id text not null,
    family text not null,
    domain text not null,
    artifact_sha256 text not null,
    base_model text not null,
    wanted_dataset text not null,
    dataset_id text,
    version text,
    golden_sha256 text,
    judge text not null,
    max_tokens int not null,
    pass_threshold double precision not null,
    state text not null check (state in ('queued', 'running', 'scored', 'failed')),
    total int not null default 0,
    summary jsonb,
    comparison jsonb,
    report jsonb,
    reason text not null default '',
    requested_by text not null,
    created_at timestamptz not null default now(),
    waiting_since timestamptz,
    finished_at timestamptz,
    foreign key (dataset_id, version) references golden_dataset
);
create index evaluation_adapter on evaluation (adapter_id, created_at desc);
create index evaluation_domain on evaluation (domain, created_at desc);

-- Stored as soon as judged, so that a killed evaluator goes on instead of beginning again.
create table sample_result (
    evaluation_id text not null references evaluation,
    sample_id text not null,
    answer text not null,
    generation_id text not null,
    finish_reason text not null,
    overall double precision not null check (overall between 0 and 100),
    verdicts jsonb not null,
    evidence jsonb not null,
    judged_at timestamptz not null default now(),
    primary key (evaluation_id, sample_id)
);

-- migrate:down
drop table sample_result;
drop table evaluation;
drop table active_adapter;
drop table candidate;
drop table golden_sample;
drop table golden_dataset;
drop function refuse_frozen;
