-- migrate:up

alter table steps add column peak_memory_bytes bigint not null default 0;

-- One row per measure of the validation split; a resumed worker writes the same ones again.
create table validations (
    job_id text not null references jobs,
    step integer not null,
    epoch double precision not null,
    loss double precision not null,
    seconds double precision not null,
    best boolean not null,
    metrics jsonb not null,
    recorded_at timestamptz not null default now(),
    primary key (job_id, step)
);

-- migrate:down
drop table validations;
alter table steps drop column peak_memory_bytes;
