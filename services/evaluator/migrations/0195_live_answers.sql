-- migrate:up

-- Answers of rollouts that were judged, each once.
create table live_judgement (
    generation_id text primary key,
    judged_at timestamptz not null default now()
);
create index live_judgement_by_age on live_judgement (judged_at);

-- Requests to judges about live answers of rollouts: what they cost. The texts are nowhere.
create table live_exchange (
    rollout_id text not null,
    generation_id text not null,
    prompt_tokens bigint not null,
    answer_tokens bigint not null,
    cost double precision not null,
    seconds double precision not null,
    asked_at timestamptz not null default now()
);
create index live_exchange_by_rollout on live_exchange (rollout_id);
create index live_exchange_by_age on live_exchange (asked_at);

-- migrate:down
drop table live_exchange;
drop table live_judgement;
