-- The extensions that all nodes must have alike, as a JSON array of
-- [name, installed version, version that the package would install].
SELECT pg_catalog.to_json(ARRAY(
  SELECT pg_catalog.json_build_array(e.extname, e.extversion,
                                     COALESCE(a.default_version, e.extversion))
  FROM pg_catalog.pg_extension e
  LEFT JOIN pg_catalog.pg_available_extensions a ON a.name OPERATOR(pg_catalog.=) e.extname
  WHERE e.extname OPERATOR(pg_catalog.=) ANY ('{citus,vector,citus_fleet}'::pg_catalog.name[])
  ORDER BY e.extname))::pg_catalog.text
