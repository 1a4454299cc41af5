-- migrate:up

-- How often the version was published: 0 is never. Publishing changes nothing of what the version holds.
alter table golden_dataset add column revision bigint not null default 0;

-- migrate:down
alter table golden_dataset drop column revision;
