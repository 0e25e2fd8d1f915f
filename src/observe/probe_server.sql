-- What any PostgreSQL server says of itself, in one JSON value. Every name is qualified: the server
-- may be anybody's, and its search_path may lead to anything.
-- $1: versions of the coordinator's extensions, as a JSON object, empty where it has none; $2: how many of its
-- relations it is to name at most. It learns no name of ours.
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
  -- Timeline 1 has no history file. One that is missing leaves the history unknown.
  'history', CASE
    WHEN pg_catalog.pg_is_in_recovery() THEN NULL
    WHEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
         OPERATOR(pg_catalog.=) '00000001' THEN ''
    ELSE pg_catalog.pg_read_file('pg_wal/' OPERATOR(pg_catalog.||)
      pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
      OPERATOR(pg_catalog.||) '.history', 0, 65536, true) END,
  'position', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
              ELSE pg_catalog.pg_current_wal_flush_lsn() END,
  -- Whoever owns the database could plant a view of that name: only the extension's own table is read.
  'has_marks', EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.objid
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND d.deptype OPERATOR(pg_catalog.=) 'e' AND e.extname OPERATOR(pg_catalog.=) 'citus_fleet'
      AND n.nspname OPERATOR(pg_catalog.=) 'fleet' AND c.relname OPERATOR(pg_catalog.=) 'marks'
      AND c.relkind OPERATOR(pg_catalog.=) 'r'),
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
  -- Not those of extensions, which it has where the coordinator has them.
  'relations', ARRAY(
    SELECT pg_catalog.json_build_object('schema', n.nspname, 'name', c.relname)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])
      AND c.oid OPERATOR(pg_catalog.>=) 16384
      AND NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_')
      AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.deptype OPERATOR(pg_catalog.=) 'e')
    LIMIT $2::pg_catalog.int8)
)::pg_catalog.text
