-- migrate:up

-- What the candidate is given before the question: a system prompt, and the turns of the conversation so far.
alter table golden_sample
    add column system text not null default '',
    add column history jsonb not null default '[]';

-- migrate:down
alter table golden_sample drop column system, drop column history;
