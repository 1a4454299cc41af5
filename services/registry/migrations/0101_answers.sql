-- migrate:up

-- Who gave an answer; rows go when they are older than the setting answers_kept_days.
-- adapters: [{"adapter_id", "artifact_sha256", "weight"}], several of a weighted set, none where the base model answered
-- alone. domains: those of the adapters.
create table answer (
    generation_id text primary key,
    answered_at timestamptz not null,
    caller text not null,
    requested_model text not null,
    routed text not null,
    fallback text not null,
    base_model text not null,
    base_model_revision text not null,
    domains text[] not null,
    adapters jsonb not null
);
create index answer_by_time on answer (answered_at);

-- migrate:down
drop table answer;
