-- migrate:up

-- The claim of the next job reads the head of this index: the jobs that are trained, and the best one that waits.
create index jobs_open on jobs (priority desc, created_at, job_id) where state in ('queued', 'running');
drop index jobs_that_wait;

-- migrate:down
create index jobs_that_wait on jobs (priority desc, created_at, job_id) where state = 'queued';
drop index jobs_open;
