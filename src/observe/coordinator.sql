-- What the coordinator knows of itself, in one JSON value. The part on Citus is another statement:
-- its catalogs may not exist.
SELECT pg_catalog.json_build_object(
  'system_identifier', (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c),
  'started_us', (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())
                 OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
  'version_num', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
  'vector_version', (SELECT e.extversion FROM pg_catalog.pg_extension e
                     WHERE e.extname OPERATOR(pg_catalog.=) 'vector'),
  'fleet_version', (SELECT e.extversion FROM pg_catalog.pg_extension e
                    WHERE e.extname OPERATOR(pg_catalog.=) 'citus_fleet'),
  'role_has_password', (SELECT r.rolpassword IS NOT NULL FROM pg_catalog.pg_authid r
                        WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER),
  'paused', (SELECT c.paused FROM fleet.control c),
  'identities', COALESCE(
    (SELECT pg_catalog.json_object_agg(i.nodeid, pg_catalog.json_build_object(
       'system_identifier', i.system_identifier, 'timeline', i.timeline,
       'history', i.history, 'position', i.position,
       'mark', CASE WHEN i.mark IS NOT NULL THEN
         pg_catalog.json_build_object('id', i.mark, 'position', i.mark_position) END,
       'lost_wal', i.lost_wal, 'rival', i.rival,
       'disabled_by_fleet', i.disabled_by_fleet, 'to_be_synced', i.to_be_synced,
       'recorded_us', (EXTRACT(epoch FROM i.recorded_at)
                       OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
       'recorded_for', GREATEST(0, EXTRACT(epoch FROM
          pg_catalog.now() OPERATOR(pg_catalog.-) i.recorded_at)::pg_catalog.int8)))
     FROM fleet.identities i), '{}'),
  'removed', ARRAY(
    SELECT pg_catalog.json_build_object(
      'system_identifier', r.system_identifier, 'nodename', r.nodename, 'nodeport', r.nodeport,
      'address', pg_catalog.host(r.address), 'relations', r.relations, 'mark', r.mark,
      'is_clean', r.cleaned_at IS NOT NULL)
    FROM fleet.removed r),
  'index_builds', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_progress_create_index)
)::pg_catalog.text
