-- migrate:up

-- Which of two answers a person preferred. The two are in the order of their ids; their adapters are null until both
-- answers are known, and '' for the base model.
create table preference (
    first_answer text not null,
    second_answer text not null,
    preferred_by text not null,
    preferred text not null,
    preferred_at timestamptz not null,
    first_adapter text,
    second_adapter text,
    primary key (first_answer, second_answer, preferred_by),
    check (first_answer < second_answer)
);
create index preference_unnamed on preference (preferred_at) where first_adapter is null;
create index preference_by_adapters on preference (first_adapter, second_adapter);

-- migrate:down
drop table preference;
