-- migrate:up

-- What a sample's judgement is worth: an undecided one is an estimate, an unjudged one has no score.
alter table sample_result
    alter column overall drop not null,
    add column standing text not null default 'decided' check (standing in ('decided', 'undecided', 'unjudged')),
    add column why text not null default '',
    add column vetoes jsonb not null default '[]',
    add check ((overall is null) = (standing = 'unjudged'));

-- Requests to language-model judges and their raw answers, which lie in the object store under their digests.
create table judge_exchange (
    evaluation_id text not null references evaluation,
    sample_id text not null,
    request_sha256 text not null,
    answer_sha256 text not null,
    request jsonb not null,
    answer jsonb not null,
    prompt_tokens bigint not null,
    answer_tokens bigint not null,
    cost double precision not null,
    seconds double precision not null,
    asked_at timestamptz not null default now(),
    primary key (evaluation_id, sample_id, request_sha256)
);
create index judge_exchange_age on judge_exchange (asked_at);
create index judge_exchange_request on judge_exchange (request_sha256);
create index judge_exchange_answer on judge_exchange (answer_sha256);

-- migrate:down
drop table judge_exchange;
alter table sample_result drop column standing, drop column why, drop column vetoes;
alter table sample_result alter column overall set not null;
