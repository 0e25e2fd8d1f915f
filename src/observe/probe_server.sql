-- What any PostgreSQL server says of itself, in one JSON value. Every name is qualified: the server
-- may be anybody's, and its search_path may lead to anything.
-- $1: versions of the coordinator's extensions, as a JSON object, empty where it has none; $2: names of its distributed tables.
SELECT pg_catalog.json_build_object(
  'system_identifier', (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c),
  'started_us', (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())
                 OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  -- A standby knows no timeline of its own; the control file's lags after a promotion.
  'timeline', CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN
    ('x' OPERATOR(pg_catalog.||) pg_catalog.substr(
       pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int4
    ELSE 0 END,
  'version_num', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
  'max_prepared_transactions', pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int4,
  'extensions', (
    SELECT pg_catalog.json_object_agg(ours.key, pg_catalog.json_build_object(
      'installed', theirs.extversion,
      -- The list of all versions reads every script on that host; it is asked only where the
      -- version that the package would install is not the one.
      'available', CASE
        WHEN ours.value OPERATOR(pg_catalog.=) '' THEN false
        WHEN theirs.extversion OPERATOR(pg_catalog.=) ours.value THEN true
        WHEN EXISTS (SELECT FROM pg_catalog.pg_available_extensions a
                     WHERE a.name OPERATOR(pg_catalog.=) ours.key::pg_catalog.name
                       AND a.default_version OPERATOR(pg_catalog.=) ours.value) THEN true
        ELSE EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions v
                     WHERE v.name OPERATOR(pg_catalog.=) ours.key::pg_catalog.name
                       AND v.version OPERATOR(pg_catalog.=) ours.value) END))
    FROM pg_catalog.json_each_text($1::pg_catalog.json) ours
    LEFT JOIN pg_catalog.pg_extension theirs
      ON theirs.extname OPERATOR(pg_catalog.=) ours.key::pg_catalog.name),
  'index_builds', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_progress_create_index),
  'clashing_relations', ARRAY(
    SELECT relation.name
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    CROSS JOIN LATERAL (SELECT n.nspname::pg_catalog.text OPERATOR(pg_catalog.||) '.'
                               OPERATOR(pg_catalog.||) c.relname::pg_catalog.text AS name) relation
    WHERE relation.name OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])
    LIMIT 10)
)::pg_catalog.text
