-- migrate:up

alter table jobs drop constraint jobs_state_check;
alter table jobs add constraint jobs_state_check
    check (state in ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled'));
alter table jobs
    add column priority integer not null default 0,
    add column pause_by text not null default '',
    add column pause_reason text not null default '',
    -- Every attempt: number, worker, start, end, outcome, reason.
    add column history jsonb not null default '[]',
    -- The adapter that is trained further.
    add column continued jsonb;
create index jobs_that_wait on jobs (priority desc, created_at, job_id) where state = 'queued';

-- migrate:down
drop index jobs_that_wait;
update jobs set state = 'cancelled', finished_at = now() where state = 'paused';
alter table jobs drop column continued, drop column history, drop column pause_reason, drop column pause_by,
    drop column priority;
alter table jobs drop constraint jobs_state_check;
alter table jobs add constraint jobs_state_check
    check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled'));
