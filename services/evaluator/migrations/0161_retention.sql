-- migrate:up

-- Versions that the registry has released: what was judged of them may be let go. released_at is the event's time here.
create table released_version (
    adapter_id text primary key,
    released_at timestamptz not null default now()
);

-- Since when an evaluation has no answers, exchanges and report any more; its scores and its row stay.
alter table evaluation add column let_go_at timestamptz;

-- migrate:down
alter table evaluation drop column let_go_at;
drop table released_version;
