-- migrate:up

-- Tokens that a firing planned to train on.
alter table retraining_firings add column planned_tokens bigint not null default 0;

-- migrate:down
alter table retraining_firings drop column planned_tokens;
