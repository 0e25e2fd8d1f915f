-- Does its work on the coordinator; has to be there, at the same version, on every node.
CREATE EXTENSION citus_fleet;
