-- migrate:up

-- The evaluation that this one only serves to compare with: an active version judged again. Empty for all others.
alter table evaluation add column compares_for text not null default '';

-- Tries at a golden data set are counted from here.
alter table active_adapter add column activated_at timestamptz not null default now();

-- migrate:down
alter table active_adapter drop column activated_at;
alter table evaluation drop column compares_for;
