-- What the catalogs and the statistics of one node say of its vector tables, in one JSON value. Reads
-- no table and waits for no lock: the sizes and what the indexes say of themselves come from Rust.
-- Tables and indexes are found through pg_depend, which has an index for it, rather than by going
-- through every attribute of the database.
WITH types AS MATERIALIZED (
  SELECT t.oid, t.typname
  FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_depend d
    ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
   AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
   AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
  JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) d.objid
  WHERE e.extname OPERATOR(pg_catalog.=) 'vector'
    AND t.typname OPERATOR(pg_catalog.=) ANY ('{vector,halfvec,sparsevec}'::pg_catalog.name[])
), with_domains AS MATERIALIZED (
  SELECT t.oid, t.typname, NULL::pg_catalog.int4 AS typmod, false AS is_domain FROM types t
  UNION ALL
  SELECT d.oid, t.typname, d.typtypmod, true FROM types t
  JOIN pg_catalog.pg_type d ON d.typbasetype OPERATOR(pg_catalog.=) t.oid
), vector_columns AS MATERIALIZED (
  SELECT a.attrelid, a.attnum, a.attname, t.typname, COALESCE(t.typmod, a.atttypmod) AS dimensions,
         t.is_domain, a.attinhcount OPERATOR(pg_catalog.>) 0 AS is_inherited
  FROM with_domains t
  JOIN pg_catalog.pg_depend d
    ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
   AND d.refobjid OPERATOR(pg_catalog.=) t.oid
   AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
   AND d.objsubid OPERATOR(pg_catalog.>) 0
  JOIN pg_catalog.pg_attribute a
    ON a.attrelid OPERATOR(pg_catalog.=) d.objid AND a.attnum OPERATOR(pg_catalog.=) d.objsubid
   AND NOT a.attisdropped
), vector_indexes AS MATERIALIZED (
  SELECT DISTINCT i.indexrelid, i.indrelid, m.amname, i.indisvalid, i.indisready,
         i.indpred IS NOT NULL AS partial
  FROM pg_catalog.pg_am m
  JOIN pg_catalog.pg_opclass o ON o.opcmethod OPERATOR(pg_catalog.=) m.oid
  JOIN pg_catalog.pg_depend d
    ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opclass'::pg_catalog.regclass
   AND d.refobjid OPERATOR(pg_catalog.=) o.oid
   AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) d.objid
  WHERE m.amname OPERATOR(pg_catalog.=) ANY ('{hnsw,ivfflat}'::pg_catalog.name[])
), relations AS MATERIALIZED (
  SELECT c.oid, c.relname, n.nspname, c.relkind, c.relreplident, c.reltuples, c.relpages, c.reloptions,
         (SELECT m.amname FROM pg_catalog.pg_am m WHERE m.oid OPERATOR(pg_catalog.=) c.relam) AS amname
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(
          SELECT v.attrelid FROM vector_columns v UNION SELECT i.indrelid FROM vector_indexes i))
    AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m}'::"char"[])
    AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
), columns AS (
  SELECT v.attrelid, pg_catalog.json_agg(pg_catalog.json_build_object(
    'name', v.attname, 'quoted', pg_catalog.quote_ident(v.attname), 'kind', v.typname, 'dimensions', v.dimensions,
    'is_domain', v.is_domain, 'is_inherited', v.is_inherited,
    'null_fraction', (SELECT s.stanullfrac FROM pg_catalog.pg_statistic s
                      WHERE s.starelid OPERATOR(pg_catalog.=) v.attrelid
                        AND s.staattnum OPERATOR(pg_catalog.=) v.attnum AND NOT s.stainherit))
    ORDER BY v.attnum) AS list
  FROM vector_columns v
  GROUP BY v.attrelid
), indexes AS (
  SELECT i.indrelid, pg_catalog.json_agg(pg_catalog.json_build_object(
    'oid', i.indexrelid::pg_catalog.int8, 'name', c.relname,
    'quoted', pg_catalog.quote_ident(c.relname), 'method', i.amname,
    'partitioned', c.relkind OPERATOR(pg_catalog.=) 'I',
    'valid', i.indisvalid, 'ready', i.indisready, 'partial', i.partial,
    -- How its definition begins: names may hold anything, so what follows is found by this.
    'head', pg_catalog.format('CREATE INDEX %I ON %s%I.%I USING ', c.relname,
      CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'I' THEN 'ONLY ' ELSE '' END, n.nspname, r.relname),
    'options', COALESCE(c.reloptions, '{}'),
    -- Those of its key, and not of its predicate, as pg_depend would have them.
    'columns', ARRAY(
      SELECT a.attname
      FROM pg_catalog.pg_index x
      JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) x.indrelid
       AND a.attnum OPERATOR(pg_catalog.>) 0
       AND (a.attnum OPERATOR(pg_catalog.=) ANY (x.indkey) OR x.indexprs::pg_catalog.text OPERATOR(pg_catalog.~)
            pg_catalog.concat(':varattno ', a.attnum, '[^0-9]'))
      WHERE x.indexrelid OPERATOR(pg_catalog.=) i.indexrelid
      ORDER BY a.attname),
    'kind', (SELECT COALESCE(t.typname, pg_catalog.format_type(k.atttypid, NULL)) FROM pg_catalog.pg_attribute k
             LEFT JOIN with_domains t ON t.oid OPERATOR(pg_catalog.=) k.atttypid
             WHERE k.attrelid OPERATOR(pg_catalog.=) i.indexrelid AND k.attnum OPERATOR(pg_catalog.=) 1),
    'dimensions', (SELECT COALESCE(t.typmod, k.atttypmod) FROM pg_catalog.pg_attribute k
             LEFT JOIN with_domains t ON t.oid OPERATOR(pg_catalog.=) k.atttypid
             WHERE k.attrelid OPERATOR(pg_catalog.=) i.indexrelid AND k.attnum OPERATOR(pg_catalog.=) 1),
    'filenode', COALESCE(pg_catalog.pg_relation_filenode(i.indexrelid::pg_catalog.regclass), 0)::pg_catalog.int8,
    'reltuples', c.reltuples, 'relpages', c.relpages,
    'scans', pg_catalog.pg_stat_get_numscans(i.indexrelid),
    'blocks_fetched', pg_catalog.pg_stat_get_blocks_fetched(i.indexrelid),
    'blocks_hit', pg_catalog.pg_stat_get_blocks_hit(i.indexrelid))
    ORDER BY c.relname) AS list
  FROM vector_indexes i
  -- By the catalogs' own indexes: of the relations above nobody knows beforehand how many there are, and each
  -- index would be compared with all of them.
  JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) r.relnamespace
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
  GROUP BY i.indrelid
)
SELECT pg_catalog.json_build_object(
  'observed_at', EXTRACT(epoch FROM pg_catalog.clock_timestamp()),
  'version_num', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'extensions', (
    SELECT COALESCE(pg_catalog.json_object_agg(e.extname, e.extversion), '{}')
    FROM pg_catalog.pg_extension e
    WHERE e.extname OPERATOR(pg_catalog.=) ANY ('{citus,vector,citus_fleet}'::pg_catalog.name[])),
  'settings', (
    SELECT COALESCE(pg_catalog.json_object_agg(s.name, pg_catalog.json_build_object(
      'value', CASE WHEN u.bytes IS NULL THEN s.reset_val
        ELSE (s.reset_val::pg_catalog.int8 OPERATOR(pg_catalog.*) u.bytes)::pg_catalog.text END,
      'session', CASE WHEN u.bytes IS NULL THEN s.setting
        ELSE (s.setting::pg_catalog.int8 OPERATOR(pg_catalog.*) u.bytes)::pg_catalog.text END,
      'source', s.source)), '{}')
    FROM pg_catalog.pg_settings s
    LEFT JOIN (VALUES ('B', 1), ('kB', 1024), ('8kB', 8192), ('MB', 1048576)) AS u (unit, bytes)
      ON u.unit OPERATOR(pg_catalog.=) s.unit
    WHERE s.name OPERATOR(pg_catalog.=) ANY ('{maintenance_work_mem,max_parallel_maintenance_workers,min_parallel_table_scan_size,effective_cache_size,shared_buffers,enable_indexscan,output_plugin_libraries,citus.max_adaptive_executor_pool_size,citus.propagate_set_commands}'::pg_catalog.text[])
       OR pg_catalog.starts_with(s.name, 'hnsw.') OR pg_catalog.starts_with(s.name, 'ivfflat.')),
  'role_settings', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'role', pg_catalog.quote_ident(a.rolname),
      'in_database', s.setdatabase OPERATOR(pg_catalog.<>) 0,
      'name', c.name, 'value', c.value)), '[]')
    FROM pg_catalog.pg_db_role_setting s
    JOIN pg_catalog.pg_roles a ON a.oid OPERATOR(pg_catalog.=) s.setrole
    JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    CROSS JOIN LATERAL pg_catalog.pg_options_to_table(s.setconfig) c (name, value)
    WHERE s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, d.oid])
      AND (c.name OPERATOR(pg_catalog.=) 'enable_indexscan'
        OR pg_catalog.starts_with(c.name, 'hnsw.') OR pg_catalog.starts_with(c.name, 'ivfflat.'))),
  'database', pg_catalog.quote_ident(pg_catalog.current_database()),
  -- What the control file says, and so what new sessions load.
  'library', pg_catalog.json_build_object('is_replaced', false, 'installed', (
    SELECT e.default_version FROM pg_catalog.pg_available_extensions() e
    WHERE e.name OPERATOR(pg_catalog.=) 'vector')),
  'relations', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', r.oid::pg_catalog.int8, 'schema', r.nspname, 'name', r.relname,
      'quoted', pg_catalog.format('%I.%I', r.nspname, r.relname),
      'quoted_schema', pg_catalog.quote_ident(r.nspname),
      'partitioned', r.relkind OPERATOR(pg_catalog.=) 'p',
      'parent', (
        SELECT pg_catalog.format('%I.%I', pn.nspname, pc.relname)
        FROM pg_catalog.pg_inherits h
        JOIN pg_catalog.pg_class pc ON pc.oid OPERATOR(pg_catalog.=) h.inhparent
         AND pc.relkind OPERATOR(pg_catalog.=) 'p'
        JOIN pg_catalog.pg_namespace pn ON pn.oid OPERATOR(pg_catalog.=) pc.relnamespace
        WHERE h.inhrelid OPERATOR(pg_catalog.=) r.oid),
      'root', (
        SELECT pg_catalog.format('%I.%I', pn.nspname, pc.relname)
        FROM pg_catalog.pg_class pc
        JOIN pg_catalog.pg_namespace pn ON pn.oid OPERATOR(pg_catalog.=) pc.relnamespace
        WHERE pc.oid OPERATOR(pg_catalog.=) pg_catalog.pg_partition_root(r.oid::pg_catalog.regclass)::pg_catalog.oid
          AND pc.oid OPERATOR(pg_catalog.<>) r.oid),
      'materialized', r.relkind OPERATOR(pg_catalog.=) 'm', 'access_method', COALESCE(r.amname, ''),
      'has_identity', CASE r.relreplident WHEN 'n' THEN false WHEN 'd' THEN EXISTS (
          SELECT FROM pg_catalog.pg_index k
          WHERE k.indrelid OPERATOR(pg_catalog.=) r.oid AND k.indisprimary)
        ELSE true END,
      'reltuples', r.reltuples, 'relpages', r.relpages,
      'live', pg_catalog.pg_stat_get_live_tuples(r.oid),
      'dead', pg_catalog.pg_stat_get_dead_tuples(r.oid),
      'updated', pg_catalog.pg_stat_get_tuples_updated(r.oid),
      'hot_updated', pg_catalog.pg_stat_get_tuples_hot_updated(r.oid),
      'deleted', pg_catalog.pg_stat_get_tuples_deleted(r.oid),
      -- Dead and changed rows from which on autovacuum acts (PostgreSQL's documentation, Routine Vacuuming).
      'autovacuum', (
        SELECT CASE WHEN pg_catalog.current_setting('autovacuum')::pg_catalog.bool AND o.enabled THEN
          pg_catalog.json_build_object(
            'vacuum_at', o.vacuum_threshold OPERATOR(pg_catalog.+)
              (o.vacuum_scale OPERATOR(pg_catalog.*) GREATEST(r.reltuples, 0)),
            'analyze_at', o.analyze_threshold OPERATOR(pg_catalog.+)
              (o.analyze_scale OPERATOR(pg_catalog.*) GREATEST(r.reltuples, 0))) END
        FROM (
          SELECT
            COALESCE(pg_catalog.max(s.option_value) FILTER (WHERE s.option_name OPERATOR(pg_catalog.=) 'autovacuum_enabled'),
              'on')::pg_catalog.bool AS enabled,
            COALESCE(pg_catalog.max(s.option_value) FILTER (WHERE s.option_name OPERATOR(pg_catalog.=) 'autovacuum_vacuum_threshold'),
              pg_catalog.current_setting('autovacuum_vacuum_threshold'))::pg_catalog.float8 AS vacuum_threshold,
            COALESCE(pg_catalog.max(s.option_value) FILTER (WHERE s.option_name OPERATOR(pg_catalog.=) 'autovacuum_vacuum_scale_factor'),
              pg_catalog.current_setting('autovacuum_vacuum_scale_factor'))::pg_catalog.float8 AS vacuum_scale,
            COALESCE(pg_catalog.max(s.option_value) FILTER (WHERE s.option_name OPERATOR(pg_catalog.=) 'autovacuum_analyze_threshold'),
              pg_catalog.current_setting('autovacuum_analyze_threshold'))::pg_catalog.float8 AS analyze_threshold,
            COALESCE(pg_catalog.max(s.option_value) FILTER (WHERE s.option_name OPERATOR(pg_catalog.=) 'autovacuum_analyze_scale_factor'),
              pg_catalog.current_setting('autovacuum_analyze_scale_factor'))::pg_catalog.float8 AS analyze_scale
          FROM pg_catalog.pg_options_to_table(r.reloptions) s) o),
      'inserted', pg_catalog.pg_stat_get_tuples_inserted(r.oid),
      'modified', pg_catalog.pg_stat_get_mod_since_analyze(r.oid),
      'rows_read', pg_catalog.pg_stat_get_tuples_returned(r.oid),
      'rows_fetched', pg_catalog.pg_stat_get_tuples_fetched(r.oid),
      -- Where there is a most common value, the first slot of the statistics has it.
      'dominant', (
        SELECT COALESCE(pg_catalog.json_object_agg(a.attname, s.stanumbers1[1]), '{}')
        FROM pg_catalog.pg_statistic s
        JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) s.starelid
         AND a.attnum OPERATOR(pg_catalog.=) s.staattnum
        WHERE s.starelid OPERATOR(pg_catalog.=) r.oid AND NOT s.stainherit
          AND s.stakind1 OPERATOR(pg_catalog.=) 1 AND s.stanumbers1[1] OPERATOR(pg_catalog.>) 0.5
          AND s.stanumbers1[1] OPERATOR(pg_catalog.<=) 1),
      'last_vacuum', EXTRACT(epoch FROM GREATEST(
        pg_catalog.pg_stat_get_last_vacuum_time(r.oid), pg_catalog.pg_stat_get_last_autovacuum_time(r.oid))),
      'last_analyze', EXTRACT(epoch FROM GREATEST(
        pg_catalog.pg_stat_get_last_analyze_time(r.oid), pg_catalog.pg_stat_get_last_autoanalyze_time(r.oid))),
      'columns', COALESCE(c.list, '[]'), 'indexes', COALESCE(i.list, '[]'))
      ORDER BY r.nspname, r.relname), '[]')
    FROM relations r
    LEFT JOIN columns c ON c.attrelid OPERATOR(pg_catalog.=) r.oid
    LEFT JOIN indexes i ON i.indrelid OPERATOR(pg_catalog.=) r.oid),
  'builds', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'pid', p.pid, 'relation', p.relid::pg_catalog.int8, 'index', p.index_relid::pg_catalog.int8,
      'phase', p.phase, 'blocks_done', p.blocks_done, 'blocks_total', p.blocks_total,
      'tuples_done', p.tuples_done, 'tuples_total', p.tuples_total,
      'started', EXTRACT(epoch FROM a.query_start),
      'waiting_since', (SELECT EXTRACT(epoch FROM pg_catalog.min(l.waitstart))
                        FROM pg_catalog.pg_locks l
                        WHERE l.pid OPERATOR(pg_catalog.=) p.pid AND NOT l.granted))
      ORDER BY p.pid), '[]')
    FROM pg_catalog.pg_stat_progress_create_index p
    JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) p.pid
    WHERE p.phase IS NOT NULL AND p.relid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.oid FROM relations r))),
  'vacuums', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'pid', p.pid, 'relation', p.relid::pg_catalog.int8, 'phase', p.phase,
      'blocks_total', p.heap_blks_total, 'blocks_scanned', p.heap_blks_scanned,
      'blocks_vacuumed', p.heap_blks_vacuumed, 'started', EXTRACT(epoch FROM a.xact_start))
      ORDER BY p.pid), '[]')
    FROM pg_catalog.pg_stat_progress_vacuum p
    JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) p.pid
    -- Citus reports its shard moves as vacuums, with a phase of its own invention.
    WHERE p.phase IS NOT NULL AND p.relid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.oid FROM relations r))),
  -- Where the vector extension lives, for remedies.
  'vector_schema', (SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
    WHERE e.extname OPERATOR(pg_catalog.=) 'vector'),
  'slots', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', s.slot_name, 'active', s.active,
      'retained', CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_wal_lsn_diff(
        pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::pg_catalog.int8 END)
      ORDER BY s.slot_name), '[]')
    FROM pg_catalog.pg_replication_slots s
    WHERE pg_catalog.starts_with(s.slot_name, 'citus_shard_')
      AND s.database OPERATOR(pg_catalog.=) pg_catalog.current_database())
)::pg_catalog.text
