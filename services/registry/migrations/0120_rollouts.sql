-- migrate:up

-- One row a rollout; body is all of it. One of a family runs at a time.
create table rollout (
    rollout_id text primary key,
    family_id text not null references family,
    domain text not null,
    state text not null check (state in ('running', 'promoted', 'rolled_back')),
    started_at timestamptz not null,
    body jsonb not null
);
create unique index rollout_one_running on rollout (family_id) where state = 'running';
create index rollout_by_family on rollout (family_id, started_at);

-- How often each outcome occurred at a step: 0 is the best, 1 the worst.
create table rollout_outcome (
    rollout_id text not null references rollout on delete cascade,
    step integer not null,
    metric text not null,
    arm text not null,
    outcome double precision not null,
    times bigint not null,
    primary key (rollout_id, step, metric, arm, outcome)
);

-- Answers that had a part in a rollout, so that their ratings find it; they go with the answers.
create table rollout_answer (
    generation_id text primary key,
    rollout_id text not null references rollout on delete cascade,
    step integer not null,
    arm text not null,
    answered_at timestamptz not null
);
create index rollout_answer_by_time on rollout_answer (answered_at);

-- migrate:down
drop table rollout_answer;
drop table rollout_outcome;
drop table rollout;
