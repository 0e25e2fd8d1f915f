-- What new sessions of this database start with, by name, in one JSON value: what is set for the database, and
-- what would be there without it: what is set for all databases, else in the files, else the default. Roles and
-- sessions with values of their own are not looked at.
WITH stored AS MATERIALIZED (
  SELECT s.setdatabase, pg_catalog.lower(o.option_name) AS name, o.option_value AS value
  FROM pg_catalog.pg_db_role_setting s
  CROSS JOIN LATERAL pg_catalog.pg_options_to_table(s.setconfig) o
  WHERE s.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid
), files AS MATERIALIZED (
  SELECT pg_catalog.lower(f.name) AS name, f.setting AS value, f.seqno
  FROM pg_catalog.pg_file_settings f
  WHERE f.applied
)
SELECT COALESCE(pg_catalog.json_object_agg(p.name, pg_catalog.json_build_object(
  'own', (
    SELECT s.value FROM stored s
    JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase
    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
      AND s.name OPERATOR(pg_catalog.=) p.name),
  'beneath', COALESCE(
    (SELECT s.value FROM stored s
     WHERE s.setdatabase OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND s.name OPERATOR(pg_catalog.=) p.name),
    (SELECT f.value FROM files f WHERE f.name OPERATOR(pg_catalog.=) p.name ORDER BY f.seqno DESC LIMIT 1),
    pg_catalog.concat(p.boot_val, p.unit)))), '{}')::pg_catalog.text
FROM pg_catalog.pg_settings p
WHERE p.name OPERATOR(pg_catalog.=) ANY ('{enable_indexscan,maintenance_work_mem,max_parallel_maintenance_workers}'::pg_catalog.text[])
   OR pg_catalog.starts_with(p.name, 'hnsw.') OR pg_catalog.starts_with(p.name, 'ivfflat.')
