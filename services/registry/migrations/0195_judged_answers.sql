-- migrate:up

-- Scores that the judge gave answers of rollouts, so that each counts once; they go with the answers.
create table rollout_score (
    generation_id text primary key,
    rollout_id text not null references rollout on delete cascade,
    step integer not null,
    arm text not null,
    score double precision not null,
    judge text not null,
    judged_at timestamptz not null default now()
);
create index rollout_score_by_time on rollout_score (judged_at);

-- migrate:down
drop table rollout_score;
