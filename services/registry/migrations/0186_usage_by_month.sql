-- migrate:up

-- What callers took in a month of UTC, by domain of the adapter that answered; domain '' is the base model.
create table usage_by_month (
    month date not null,
    domain text not null,
    caller text not null,
    answers bigint not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    primary key (month, domain, caller)
);

-- migrate:down
drop table usage_by_month;
