-- migrate:up

-- Counts the changes of a domain's policy: who follows PolicyChanged ignores what is older than what they hold.
alter table policy add column revision bigint not null default 0;

-- migrate:down
alter table policy drop column revision;
