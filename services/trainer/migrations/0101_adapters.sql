-- migrate:up

-- What the registry said of adapters: a request continues one by its id.
create table adapters (
    adapter_id text primary key,
    domain text not null,
    job_id text not null,
    registered jsonb not null
);

-- migrate:down
drop table adapters;
