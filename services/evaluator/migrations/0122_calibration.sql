-- migrate:up

-- How a judge's scores become people's in a domain, fitted on labels when somebody asked for it. A panel uses the newest.
create table judge_calibration (
    judge text not null,
    domain text not null,
    fitted_at timestamptz not null default now(),
    intercept double precision not null,
    slope double precision not null check (slope >= 0),
    answers int not null,
    fitted_by text not null,
    primary key (judge, domain, fitted_at)
);

-- migrate:down
drop table judge_calibration;
