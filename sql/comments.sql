-- What \d+, \df+ and \dv+ show. A test fails for an object of the extension that has none.

COMMENT ON SCHEMA fleet IS 'citus_fleet: the fleet of workers of this Citus cluster';

COMMENT ON TABLE fleet.events IS 'Every change of a worker''s state, kept for citus_fleet.event_retention';
COMMENT ON COLUMN fleet.events.at IS 'When the controller saw it';
COMMENT ON COLUMN fleet.events.nodename IS 'Name of the worker as in fleet.workers';
COMMENT ON COLUMN fleet.events.nodeport IS 'Port of the worker';
COMMENT ON COLUMN fleet.events.nodeid IS 'Its nodeid in pg_dist_node, once it is registered';
COMMENT ON COLUMN fleet.events.event IS 'The state that it entered';
COMMENT ON COLUMN fleet.events.detail IS 'The state before, the reason, the address and the source';
COMMENT ON INDEX fleet.events_worker_idx IS 'The newest event of each worker';
COMMENT ON INDEX fleet.events_at_idx IS 'Events that are older than the retention';

COMMENT ON TABLE fleet.control IS 'One row: whether changes are paused; written by fleet.pause() and fleet.resume()';
COMMENT ON COLUMN fleet.control.singleton IS 'Always true: there is one row';
COMMENT ON COLUMN fleet.control.paused IS 'No change of the cluster''s metadata begins while this is true';
COMMENT ON COLUMN fleet.control.changed_at IS 'When it was paused or resumed';
COMMENT ON COLUMN fleet.control.changed_by IS 'Who paused or resumed it';
COMMENT ON INDEX fleet.control_pkey IS 'There is one row';

COMMENT ON TABLE fleet.identities IS 'Who each registered worker is: the controller follows a worker only by this';
COMMENT ON COLUMN fleet.identities.nodeid IS 'Its nodeid in pg_dist_node';
COMMENT ON COLUMN fleet.identities.system_identifier IS 'Identity of its data directory, shared by its standbys';
COMMENT ON COLUMN fleet.identities.timeline IS 'The highest timeline it was seen at: a server below it was left behind by a promotion';
COMMENT ON COLUMN fleet.identities.disabled_by_fleet IS 'It was disabled because it was absent, and is reactivated when it is back';
COMMENT ON COLUMN fleet.identities.recorded_at IS 'When it was first seen as this worker';
COMMENT ON COLUMN fleet.identities.rebalanced_at IS 'When the rebalancer was started for it, by citus_fleet.rebalance_on_join';
COMMENT ON INDEX fleet.identities_pkey IS 'One identity to a node';

COMMENT ON TABLE fleet.removed IS 'Servers that fleet.remove_worker() has taken out, and that stay out until fleet.enroll_worker()';
COMMENT ON COLUMN fleet.removed.system_identifier IS 'Identity of its data directory';
COMMENT ON COLUMN fleet.removed.nodename IS 'The name it was registered under';
COMMENT ON COLUMN fleet.removed.nodeport IS 'Its port';
COMMENT ON COLUMN fleet.removed.address IS 'Where it answered when it was removed';
COMMENT ON COLUMN fleet.removed.relations IS 'What Citus leaves on a removed server: shards of reference tables, and shards that it had not dropped yet';
COMMENT ON COLUMN fleet.removed.removed_at IS 'When it was removed';
COMMENT ON COLUMN fleet.removed.removed_by IS 'Who removed it';
COMMENT ON COLUMN fleet.removed.cleaned_at IS 'When the controller had dropped the relations; NULL until then';
COMMENT ON INDEX fleet.removed_pkey IS 'One row to a server';

COMMENT ON VIEW fleet.workers IS 'Every candidate and every registered worker as of the controller''s last cycle, each with its state, the reason and a remedy';
COMMENT ON COLUMN fleet.workers.nodename IS 'The name it is, or would be, registered under';
COMMENT ON COLUMN fleet.workers.nodeport IS 'Its port';
COMMENT ON COLUMN fleet.workers.address IS 'The address that the name leads to';
COMMENT ON COLUMN fleet.workers.nodeid IS 'Its nodeid in pg_dist_node; NULL for a candidate';
COMMENT ON COLUMN fleet.workers.groupid IS 'Its groupid in pg_dist_node; NULL for a candidate';
COMMENT ON COLUMN fleet.workers.state IS 'discovered, unreachable, refused, standby, ready, active, inactive, absent, conflict, blank, removing or removed';
COMMENT ON COLUMN fleet.workers.since IS 'When it entered the state';
COMMENT ON COLUMN fleet.workers.reason IS 'The fact that led to the state';
COMMENT ON COLUMN fleet.workers.remedy IS 'What an operator can do';
COMMENT ON COLUMN fleet.workers.source IS 'The source that names it; NULL when none does';
COMMENT ON COLUMN fleet.workers.system_identifier IS 'Identity of its data directory, from pg_control_system()';
COMMENT ON COLUMN fleet.workers.server_version IS 'Its PostgreSQL version';
COMMENT ON COLUMN fleet.workers.citus_version IS 'The version of citus installed there';
COMMENT ON COLUMN fleet.workers.vector_version IS 'The version of vector installed there';
COMMENT ON COLUMN fleet.workers.round_trip_ms IS 'Duration of its last probe in milliseconds: login, two queries and their answers';
COMMENT ON COLUMN fleet.workers.last_seen IS 'When it last answered a probe';

COMMENT ON FUNCTION pg_catalog.citus_autoregister(boolean) IS 'Finds and registers workers now and says what it did; with dry_run, what it would do';
COMMENT ON FUNCTION fleet.snapshot() IS 'What the controller saw in its last cycle, as JSON; the views of this schema read it';
COMMENT ON FUNCTION fleet.status() IS 'The controller: role, paused, last cycle, its duration, errors, counts by state';
COMMENT ON FUNCTION fleet.doctor() IS 'Checks the configuration of this node and of the cluster';
COMMENT ON FUNCTION fleet.pause() IS 'Stops changes of the cluster''s metadata; observation goes on';
COMMENT ON FUNCTION fleet.remove_worker(text, integer, boolean, text) IS 'Moves the shards of a worker to the others, removes it from the cluster, and keeps it out; called again, goes on where it ended';
COMMENT ON FUNCTION fleet.enroll_worker(text, integer) IS 'Lets a server that was removed join again';
COMMENT ON FUNCTION fleet.resume() IS 'Lets changes of the cluster''s metadata happen again';

COMMENT ON FUNCTION fleet.vector_evidence() IS 'What this node says of its own vector tables; the views of vector-shard health ask every node';
