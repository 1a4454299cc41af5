-- migrate:up

-- What a job adapts whose request names no target modules: the base model's own layers. Before there was this column
-- those were Llama's.
alter table jobs add column targets text[] not null default '{}';
update jobs set targets = '{down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj}';

-- migrate:down
alter table jobs drop column targets;
