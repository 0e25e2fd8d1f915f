-- What searches of this database go by where neither a role nor a session says otherwise, by name, in one JSON
-- value: what is set for the database, else for all databases, else in the files, else the default.
WITH own AS MATERIALIZED (
  SELECT r.setdatabase, pg_catalog.split_part(o, '=', 1) AS name,
         pg_catalog.substr(o, pg_catalog.strpos(o, '=') OPERATOR(pg_catalog.+) 1) AS value
  FROM pg_catalog.pg_db_role_setting r
  CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) o
  WHERE r.setrole OPERATOR(pg_catalog.=) 0
    AND r.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, (
      SELECT d.oid FROM pg_catalog.pg_database d
      WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())])
)
SELECT COALESCE(pg_catalog.json_object_agg(s.name, COALESCE(
    (SELECT d.value FROM own d WHERE d.name OPERATOR(pg_catalog.=) s.name ORDER BY d.setdatabase DESC LIMIT 1),
    (SELECT f.setting FROM pg_catalog.pg_file_settings f
     WHERE f.name OPERATOR(pg_catalog.=) s.name AND f.applied ORDER BY f.seqno DESC LIMIT 1),
    s.boot_val)), '{}')::pg_catalog.text
FROM pg_catalog.pg_settings s
WHERE s.name OPERATOR(pg_catalog.=) 'enable_indexscan'
   OR pg_catalog.starts_with(s.name, 'hnsw.') OR pg_catalog.starts_with(s.name, 'ivfflat.')
