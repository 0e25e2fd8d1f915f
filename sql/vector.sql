-- What the functions of vector-shard health run with, and the views that show what they find.

-- Shards are hidden from pg_class unless this says otherwise; without Citus it has no effect.
ALTER FUNCTION fleet.vector_evidence() SET citus.show_shards_for_app_name_prefixes = '*';

CREATE VIEW fleet.vector_shards AS
SELECT
  s.table_name,
  s.shardid,
  s.kind,
  s.nodename,
  s.nodeport,
  s.status,
  s.findings,
  s.reason,
  s.rows,
  s.dead_rows,
  s.table_bytes,
  s.index_bytes,
  s.indexes,
  s.valid_indexes,
  pg_catalog.to_timestamp(s.last_vacuum) AS last_vacuum,
  pg_catalog.to_timestamp(s.last_analyze) AS last_analyze
FROM pg_catalog.json_to_recordset(fleet.vector_rows('shards')) AS s (
  table_name text,
  shardid bigint,
  kind text,
  nodename text,
  nodeport integer,
  status text,
  findings text[],
  reason text,
  rows double precision,
  dead_rows bigint,
  table_bytes double precision,
  index_bytes bigint,
  indexes integer,
  valid_indexes integer,
  last_vacuum double precision,
  last_analyze double precision
);

CREATE VIEW fleet.vector_indexes AS
SELECT i.*
FROM pg_catalog.json_to_recordset(fleet.vector_rows('indexes')) AS i (
  table_name text,
  shardid bigint,
  nodename text,
  nodeport integer,
  index_name text,
  shard_index_name text,
  method text,
  columns text[],
  status text,
  findings text[],
  valid boolean,
  definition text,
  built_with jsonb,
  index_bytes bigint,
  pages_ratio double precision,
  build_bytes double precision,
  scans bigint,
  hit_ratio double precision
);

CREATE VIEW fleet.vector_tables AS
SELECT t.*
FROM pg_catalog.json_to_recordset(fleet.vector_rows('tables')) AS t (
  table_name text,
  partition_of text,
  kind text,
  status text,
  findings text[],
  columns text[],
  shards integer,
  placements integer,
  unknown_placements integer,
  rows double precision,
  dead_rows bigint,
  table_bytes double precision,
  index_bytes bigint
);

CREATE VIEW fleet.vector_nodes AS
SELECT
  n.nodename,
  n.nodeport,
  n.nodeid,
  n.status,
  n.findings,
  n.reason,
  n.placements,
  n.rows,
  n.index_bytes,
  n.effective_cache_size,
  n.maintenance_work_mem,
  n.memory_bytes,
  n.disk_free_bytes,
  n.vector_version,
  n.settings,
  pg_catalog.to_timestamp(n.observed_at) AS observed_at
FROM pg_catalog.json_to_recordset(fleet.vector_rows('nodes')) AS n (
  nodename text,
  nodeport integer,
  nodeid integer,
  status text,
  findings text[],
  reason text,
  placements integer,
  rows double precision,
  index_bytes bigint,
  effective_cache_size bigint,
  maintenance_work_mem bigint,
  memory_bytes bigint,
  disk_free_bytes bigint,
  vector_version text,
  settings jsonb,
  observed_at double precision
);

CREATE VIEW fleet.vector_recalls AS
SELECT
  r.table_name,
  r.index_name,
  r.status,
  r.reason,
  r.k,
  r.recall,
  r.ci_low,
  r.ci_high,
  r.returned_ratio,
  r.queries,
  r.placements,
  r.measured_placements,
  r.settings,
  pg_catalog.to_timestamp(r.measured_at) AS measured_at
FROM pg_catalog.json_to_recordset(fleet.vector_rows('recalls')) AS r (
  table_name text,
  index_name text,
  status text,
  reason text,
  k integer,
  recall double precision,
  ci_low double precision,
  ci_high double precision,
  returned_ratio double precision,
  queries bigint,
  placements integer,
  measured_placements integer,
  settings text,
  measured_at double precision
);

CREATE VIEW fleet.vector_findings AS
SELECT
  f."check",
  f.indicator,
  f.status,
  f.node,
  f.table_name,
  f.shardid,
  f.index_name,
  f.symptom,
  f.evidence,
  f.impact,
  f.cause,
  f.action,
  f.run_on,
  f.remedy_sql,
  f.silenced_by,
  f.silenced_why,
  pg_catalog.to_timestamp(f.silenced_until) AS silenced_until
FROM pg_catalog.json_to_recordset(fleet.vector_rows('findings')) AS f (
  "check" text,
  indicator text,
  status text,
  node text,
  table_name text,
  shardid bigint,
  index_name text,
  symptom text,
  evidence jsonb,
  impact text,
  cause text,
  action text,
  run_on text,
  remedy_sql text,
  silenced_by text,
  silenced_why text,
  silenced_until double precision
);

CREATE VIEW fleet.vector_progress AS
SELECT
  p.nodename,
  p.nodeport,
  p.table_name,
  p.shardid,
  p.index_name,
  p.activity,
  p.phase,
  p.ratio,
  pg_catalog.make_interval(secs => p.elapsed_seconds) AS elapsed,
  pg_catalog.make_interval(secs => p.remaining_seconds) AS remaining
FROM pg_catalog.json_to_recordset(fleet.vector_rows('progress')) AS p (
  nodename text,
  nodeport integer,
  table_name text,
  shardid bigint,
  index_name text,
  activity text,
  phase text,
  ratio double precision,
  elapsed_seconds double precision,
  remaining_seconds double precision
);
