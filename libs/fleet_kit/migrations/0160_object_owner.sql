-- migrate:up

-- Which database this is, and how far it has come. The same stands in an object beside the service's objects: a database
-- that is another's, or behind it, does not know what was written since, and deletes none of it.
create table object_owner (
    one boolean primary key default true check (one),
    database_id text not null default gen_random_uuid()::text,
    generation bigint not null default 0,
    made_at timestamptz not null default now()
);
insert into object_owner default values;

-- migrate:down
drop table object_owner;
