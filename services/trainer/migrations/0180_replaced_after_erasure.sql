-- migrate:up

-- Whether the adapters that learned from the records are trained again without them, and rejected once that serves.
alter table erasures add column replace boolean not null default false;

-- migrate:down
alter table erasures drop column replace;
