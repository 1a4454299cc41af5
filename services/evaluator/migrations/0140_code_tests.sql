-- migrate:up

-- Python that has to run to its end behind the code of an answer.
alter table golden_sample add column tests text not null default '';

-- migrate:down
alter table golden_sample drop column tests;
