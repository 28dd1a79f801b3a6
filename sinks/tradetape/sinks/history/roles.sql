-- name: roles
-- Roles without a login: give them to the logins of workers and people with GRANT tradetape_sink TO my_worker.
-- All workers of one sink log in as one user: a new owner of a partition ends the session of the one before it, which
-- PostgreSQL allows among sessions of one user (or with pg_signal_backend, which reaches further).
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['tradetape_owner', 'tradetape_sink', 'tradetape_reader', 'tradetape_retention',
                                'tradetape_dispatch'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'tradetape_owner', 'MEMBER') THEN
        EXECUTE format('GRANT tradetape_owner TO %I', current_user);
    END IF;
END $$;

-- name: ownership
-- Everything belongs to tradetape_owner, who is no superuser: what its functions do for others has its rights, no more.
DO $$
DECLARE
    one record;
BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO tradetape_owner', current_database());
    ALTER SCHEMA tradetape OWNER TO tradetape_owner;
    FOR one IN SELECT c.oid::regclass AS name FROM pg_class c
               WHERE c.relnamespace = 'tradetape'::regnamespace AND c.relkind IN ('r', 'p', 'v')
                 AND c.relowner <> 'tradetape_owner'::regrole
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO tradetape_owner', one.name);
    END LOOP;
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p
               WHERE p.pronamespace = 'tradetape'::regnamespace AND p.proowner <> 'tradetape_owner'::regrole
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO tradetape_owner', one.name);
    END LOOP;
END $$;

-- name: grants
-- Least rights; given again after each migration, so that new tables have them too.
DO $$
DECLARE
    one record;
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO tradetape_sink', current_database());
    GRANT USAGE ON SCHEMA tradetape TO tradetape_sink, tradetape_reader, tradetape_retention;
    -- The sink writes rows and its offsets. It reads no history, and makes no table but those that end with its transaction.
    FOR one IN SELECT c.oid::regclass AS name FROM pg_class c
               WHERE c.relnamespace = 'tradetape'::regnamespace AND c.relkind = 'p'
    LOOP
        EXECUTE format('GRANT INSERT ON %s TO tradetape_sink', one.name);
    END LOOP;
    -- Months are read through their table, so that those made later need nothing.
    FOR one IN SELECT c.oid::regclass AS name FROM pg_class c
               WHERE c.relnamespace = 'tradetape'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO tradetape_reader', one.name);
    END LOOP;
    GRANT SELECT, INSERT, UPDATE ON tradetape.sink_offsets TO tradetape_sink;
    GRANT EXECUTE ON FUNCTION tradetape.ensure_month(text, date) TO tradetape_sink;
    -- The dispatcher keeps its offsets, its intents and the orders on paper. A database whose roles are older than it gets
    -- the role with the next `tradetape history roles`.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tradetape_dispatch') THEN
        GRANT USAGE ON SCHEMA tradetape TO tradetape_dispatch;
        GRANT SELECT, INSERT, UPDATE ON tradetape.sink_offsets, tradetape.dispatch_intents, tradetape.paper_orders
            TO tradetape_dispatch;
    END IF;
    GRANT SELECT ON tradetape.retention, tradetape.dropped_months TO tradetape_retention;
    GRANT EXECUTE ON FUNCTION tradetape.drop_month(text, date) TO tradetape_retention;
END $$;
