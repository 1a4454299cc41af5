-- migrate:up

-- Metrics of the answer by name: a value from 0 to 1, or why there is none.
alter table sample_result add column metrics jsonb not null default '{}';

-- migrate:down
alter table sample_result drop column metrics;
