-- migrate:up

-- What people think of judged answers, on the judge's scale: what its scores are held against. Kept with the evaluation.
create table human_label (
    evaluation_id text not null,
    sample_id text not null,
    labelled_by text not null,
    score double precision not null check (score between 0 and 100),
    note text not null default '',
    labelled_at timestamptz not null default now(),
    primary key (evaluation_id, sample_id, labelled_by),
    foreign key (evaluation_id, sample_id) references sample_result
);

-- migrate:down
drop table human_label;
