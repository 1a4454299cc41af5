-- migrate:up

-- Whether a version is rejected once one of its family is active that did not learn from the erased records.
alter table learned_from_erased add column retire_when_replaced boolean not null default false;

-- migrate:down
alter table learned_from_erased drop column retire_when_replaced;
