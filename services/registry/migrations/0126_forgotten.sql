-- migrate:up

-- Answers whose person had their records erased: nothing of them is kept, whenever it arrives.
create table forgotten (
    generation_id text primary key,
    erasure_id text not null,
    at timestamptz not null default now()
);

-- migrate:down
drop table forgotten;
