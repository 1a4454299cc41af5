-- migrate:up

-- What each judge of a panel preferred by itself, by its name: {"new_first": {"preferred": ...}, "new_second": ...}.
alter table pair_result add column members jsonb not null default '{}';
-- Of pairs that people order, how many the judge had in the same order when its calibration was fitted; ties half.
alter table judge_calibration
    add column pairs int not null default 0,
    add column pairs_agreed double precision not null default 0;

-- migrate:down
alter table judge_calibration drop column pairs, drop column pairs_agreed;
alter table pair_result drop column members;
