-- migrate:up

-- Versions that are to be had for another base model, or another revision of theirs. state: training until its job has
-- ended; then registered, with the new version, or failed, with why.
create table base_model_migration (
    migration_id text primary key,
    adapter_id text not null references adapter,
    domain text not null,
    strategy text not null check (strategy in ('convert', 'retrain')),
    from_base_model text not null,
    from_revision text not null,
    to_base_model text not null,
    to_revision text not null,
    state text not null check (state in ('training', 'registered', 'failed')),
    job_id text unique,
    new_adapter_id text references adapter,
    error text not null default '',
    reason text not null,
    requested_by text not null,
    requested_at timestamptz not null,
    ended_at timestamptz
);
create index base_model_migration_by_domain on base_model_migration (domain, requested_at);
create unique index base_model_migration_under_way on base_model_migration (adapter_id, to_revision)
    where state = 'training';

-- migrate:down
drop table base_model_migration;
