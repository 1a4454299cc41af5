-- migrate:up

-- Numbers of a version that users measured themselves; who changed which, and what stood there before, is in the audit.
create table own_metric (
    adapter_id text not null references adapter,
    name text not null,
    value double precision not null,
    ci_low double precision,
    ci_high double precision,
    samples bigint,
    note text not null,
    set_by text not null,
    set_at timestamptz not null,
    primary key (adapter_id, name)
);

-- migrate:down
drop table own_metric;
