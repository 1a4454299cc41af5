-- migrate:up

-- Answers that the fleet gave and a domain's policy let be recorded. Versioned with the live records that feedback makes
-- of them. stream_sequence is that of the message on the bus, content_uri of the object that had its texts, if any.
create table answers (
    generation_id text primary key,
    domain text not null,
    adapter_id text not null,
    artifact_sha256 text not null,
    mix jsonb not null,
    base_model text not null,
    base_model_revision text not null,
    requested_model text not null,
    routed text not null,
    fallback text not null,
    sampling jsonb not null,
    finish_reason text not null,
    turns jsonb not null,
    -- Digest of the turns: answers to one conversation have one.
    prompt_key text not null,
    answer text not null,
    -- The policy that permitted it, and the kinds of personal data that were masked.
    consent jsonb not null,
    masked text[] not null,
    subject text not null,
    caller text not null,
    comparison_id text not null,
    content_uri text not null,
    stream_sequence bigint not null,
    answered_at timestamptz not null,
    recorded_at timestamptz not null default now()
);
create index answers_by_domain on answers (domain, recorded_at desc);
create index answers_by_age on answers (recorded_at);
create index answers_by_prompt on answers (prompt_key);
create index answers_by_subject on answers (subject) where subject <> '';

-- What people think of answers, by generation id: one row a rater for rating and correction, and one for each answer that
-- it is preferred over. waiting: for the answer, which may come later.
create table answer_feedback (
    generation_id text not null,
    rater text not null,
    preferred_over text not null,
    domain text not null,
    rating integer check (rating between 1 and 5),
    correction text not null,
    subject text not null,
    caller text not null,
    source text not null,
    -- Those of the messages that told it.
    stream_sequences bigint[] not null,
    given_at timestamptz not null,
    received_at timestamptz not null default now(),
    state text not null check (state in ('waiting', 'used', 'unusable')),
    reason text not null default '',
    primary key (generation_id, rater, preferred_over)
);
create index answer_feedback_by_age on answer_feedback (received_at);
create index answer_feedback_by_other on answer_feedback (preferred_over) where preferred_over <> '';
create index answer_feedback_unused on answer_feedback (state, received_at) where state <> 'used';
create index answer_feedback_by_domain on answer_feedback (domain, received_at desc);
create index answer_feedback_by_subject on answer_feedback (subject) where subject <> '';

-- What precedes the last question: system message and earlier turns, [role, content] each. rater: whose feedback made it,
-- on the answer of which source_id is the generation id.
alter table samples
    add column context jsonb not null default '[]',
    add column rater text not null default '';
alter table preferences
    add column context jsonb not null default '[]',
    add column source_id text not null default '',
    add column rater text not null default '';
create index samples_by_source on samples (source_id) where source_id <> '';
create index preferences_by_source on preferences (source_id) where source_id <> '';

-- Three or more answers to one prompt in the order of one rater, the best first.
create table rankings (
    ranking_id text primary key,
    domain text not null,
    prompt text not null,
    context jsonb not null,
    completions text[] not null check (cardinality(completions) >= 3),
    generation_ids text[] not null,
    rater text not null,
    recorded_at timestamptz not null default now(),
    document tsvector not null generated always as (to_tsvector('simple'::regconfig, prompt)) stored
);
create index rankings_by_domain on rankings (domain);

-- migrate:down
drop table rankings;
drop index preferences_by_source;
drop index samples_by_source;
alter table preferences drop column rater, drop column source_id, drop column context;
alter table samples drop column rater, drop column context;
drop table answer_feedback;
drop table answers;
