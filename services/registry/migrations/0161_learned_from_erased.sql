-- migrate:up

-- Versions that learned from records which an erasure deleted, whether they were taken out of service for it or not.
create table learned_from_erased (
    adapter_id text not null,
    erasure_id text not null,
    at timestamptz not null default now(),
    primary key (adapter_id, erasure_id)
);

-- migrate:down
drop table learned_from_erased;
