-- migrate:up

-- Since when a golden version has no samples any more; its row stays with its digest, and evaluations refer to it.
alter table golden_dataset add column let_go_at timestamptz;

create or replace function refuse_frozen() returns trigger language plpgsql as $$
begin
    if exists (
        select from golden_dataset g
        where g.dataset_id = coalesce(new.dataset_id, old.dataset_id)
            and g.version = coalesce(new.version, old.version) and g.frozen_at is not null
            and not (tg_op = 'DELETE' and g.let_go_at is not null)
    ) then
        raise exception 'golden data set % version % is frozen', coalesce(new.dataset_id, old.dataset_id),
            coalesce(new.version, old.version) using errcode = 'integrity_constraint_violation';
    end if;
    return coalesce(new, old);
end $$;

-- Versions whose samples a rule may let go, and since when a newer one with samples is there: those that no open
-- evaluation needs and that no active version of an adapter was judged with.
create view superseded_golden as
select g.dataset_id, g.version, g.domain, newer.superseded_at
from golden_dataset g cross join lateral (
    select min(n.created_at) as superseded_at from golden_dataset n
    where n.dataset_id = g.dataset_id and n.ordinal > g.ordinal
      and exists (select from golden_sample s where (s.dataset_id, s.version) = (n.dataset_id, n.version))
) newer
where g.let_go_at is null and newer.superseded_at is not null
  and not exists (
      select from evaluation e
      where (e.dataset_id, e.version) = (g.dataset_id, g.version)
        and (e.state in ('queued', 'running') or e.adapter_id in (select adapter_id from active_adapter))
         or e.state = 'queued' and e.wanted_dataset = g.dataset_id || '@' || g.version
  );

-- migrate:down
drop view superseded_golden;
create or replace function refuse_frozen() returns trigger language plpgsql as $$
begin
    if exists (
        select from golden_dataset g
        where g.dataset_id = coalesce(new.dataset_id, old.dataset_id)
            and g.version = coalesce(new.version, old.version) and g.frozen_at is not null
    ) then
        raise exception 'golden data set % version % is frozen', coalesce(new.dataset_id, old.dataset_id),
            coalesce(new.version, old.version) using errcode = 'integrity_constraint_violation';
    end if;
    return coalesce(new, old);
end $$;
alter table golden_dataset drop column let_go_at;
