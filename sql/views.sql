-- What the controller shows of its last cycle, as rows.

CREATE VIEW fleet.workers AS
SELECT
  w.nodename,
  w.nodeport,
  w.address,
  w.nodeid,
  w.groupid,
  w.state,
  w.code,
  pg_catalog.to_timestamp(w.since) AS since,
  w.reason,
  w.remedy,
  w.source,
  w.system_identifier,
  w.server_version,
  w.citus_version,
  w.vector_version,
  w.round_trip_ms,
  pg_catalog.to_timestamp(w.last_seen) AS last_seen
FROM pg_catalog.jsonb_to_recordset(fleet.snapshot() OPERATOR(pg_catalog.->) 'workers') AS w (
  nodename text,
  nodeport integer,
  address inet,
  nodeid integer,
  groupid integer,
  state text,
  code text,
  since double precision,
  reason text,
  remedy text,
  source text,
  system_identifier bigint,
  server_version text,
  citus_version text,
  vector_version text,
  round_trip_ms double precision,
  last_seen double precision
);
