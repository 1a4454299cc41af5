-- migrate:up

-- One row a domain and method. The row is the lock under which a family changes.
create table family (
    family_id text primary key,
    domain text not null,
    method text not null,
    revision bigint not null default 0,
    created_at timestamptz not null default now(),
    unique (domain, method)
);

-- One row a version. made_of is what it was submitted with, evaluation the newest score of its artifact.
create table adapter (
    adapter_id text primary key,
    position bigint generated always as identity unique,
    family_id text not null references family,
    domain text not null,
    method text not null,
    major integer not null,
    minor integer not null,
    patch integer not null,
    base_model text not null,
    base_model_revision text not null,
    artifact_sha256 text not null,
    job_id text unique,
    made_of jsonb not null,
    registered_at timestamptz not null,
    status text not null check (status in ('pending_review', 'approved', 'rejected')),
    active boolean not null,
    decided_by text not null,
    decided_at timestamptz,
    decision_reason text not null,
    decided_on text not null,
    evaluation jsonb,
    unique (family_id, major, minor, patch),
    check (status = 'approved' or not active)
);
create unique index adapter_one_active on adapter (family_id) where active;
create index adapter_by_domain on adapter (domain, status);

-- Every score ever given, whether it decided anything or not.
create table evaluation (
    evaluation_id text primary key,
    adapter_id text not null references adapter,
    scored_at timestamptz not null,
    body jsonb not null
);
create index evaluation_by_adapter on evaluation (adapter_id, scored_at);

-- Who did what, when and why. subject is an adapter id, or policy/<domain>.
create table audit (
    position bigint generated always as identity primary key,
    subject text not null,
    domain text not null,
    at timestamptz not null,
    actor text not null,
    action text not null,
    reason text not null,
    before jsonb not null,
    after jsonb not null,
    revision bigint not null
);
create index audit_by_subject on audit (subject, position);

create table policy (
    domain text primary key,
    body jsonb not null,
    updated_by text not null,
    updated_at timestamptz not null
);

-- Finished trainings that could not be registered, and why. One row an event.
create table refusal (
    event_id text primary key,
    job_id text not null,
    domain text not null,
    artifact_sha256 text not null,
    field text not null,
    reason text not null,
    at timestamptz not null default now()
);
create index refusal_by_domain on refusal (domain, at);

-- Answers given, by adapter ('' is the base model alone).
create table usage (
    adapter_id text not null,
    domain text not null,
    base_model text not null,
    answers bigint not null,
    cancelled bigint not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    latency_ms double precision not null,
    first_used_at timestamptz not null,
    last_used_at timestamptz not null,
    primary key (adapter_id, base_model)
);

-- The newest rating that each person gave each answer.
create table feedback (
    generation_id text not null,
    rated_by text not null,
    adapter_id text not null,
    domain text not null,
    rating integer not null check (rating between 1 and 5),
    comment text not null,
    rated_at timestamptz not null,
    primary key (generation_id, rated_by)
);
create index feedback_by_adapter on feedback (adapter_id);

-- Replicas that held an adapter and proved its effect.
create table replica (
    adapter_id text not null references adapter,
    replica text not null,
    artifact_sha256 text not null,
    loads bigint not null,
    load_ms double precision not null,
    modules_bound integer not null,
    max_delta double precision not null,
    first_loaded_at timestamptz not null,
    last_loaded_at timestamptz not null,
    primary key (adapter_id, replica)
);

-- migrate:down
drop table replica;
drop table feedback;
drop table usage;
drop table refusal;
drop table policy;
drop table audit;
drop table evaluation;
drop table adapter;
drop table family;
