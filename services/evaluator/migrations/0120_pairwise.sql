-- migrate:up

-- A version's answer beside the one that its rival gave to the same sample, compared in both orders. No verdicts: why.
create table pair_result (
    evaluation_id text not null references evaluation,
    sample_id text not null,
    rival_evaluation_id text not null references evaluation,
    verdicts jsonb,
    why text not null default '',
    judged_at timestamptz not null default now(),
    primary key (evaluation_id, sample_id, rival_evaluation_id)
);

alter table evaluation add column preference jsonb;

-- migrate:down
alter table evaluation drop column preference;
drop table pair_result;
