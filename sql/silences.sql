-- Findings that are meant to be so. Ends by itself; what has ended is forgotten at the next change.

CREATE TABLE fleet.silences (
  "check" text NOT NULL,
  relation regclass,
  until timestamptz NOT NULL,
  why text NOT NULL,
  silenced_by name NOT NULL DEFAULT SESSION_USER,
  silenced_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  CONSTRAINT silences_key UNIQUE NULLS NOT DISTINCT ("check", relation)
);

-- Without its table it would be dumped as a number, which is another table elsewhere.
SELECT pg_catalog.pg_extension_config_dump('fleet.silences',
  'WHERE relation IS NULL OR relation::pg_catalog.oid IN (SELECT oid FROM pg_catalog.pg_class)');
