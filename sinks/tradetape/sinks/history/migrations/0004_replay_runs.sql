-- The replays that were run: what was read, into what, how far they came. A run that was interrupted goes on from here.

CREATE TABLE tradetape.replay_runs (
    run_id       uuid PRIMARY KEY,
    started_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    outcome      text NOT NULL DEFAULT 'RUNNING' CHECK (outcome IN ('RUNNING', 'DONE', 'BAD_DATA', 'INTERRUPTED', 'FAILED')),
    target       text NOT NULL,
    range_start  timestamptz,
    range_end    timestamptz,
    topics       text[] NOT NULL,
    plan         jsonb NOT NULL,
    progress     jsonb NOT NULL,
    counts       jsonb NOT NULL
);
COMMENT ON TABLE tradetape.replay_runs IS 'The replays that were run. One that is RUNNING and whose process is gone was killed, and can be resumed.';
COMMENT ON COLUMN tradetape.replay_runs.run_id IS 'UUID of the run: what `tradetape replay --resume` takes.';
COMMENT ON COLUMN tradetape.replay_runs.started_at IS 'When it was first started, UTC.';
COMMENT ON COLUMN tradetape.replay_runs.updated_at IS 'When it last told how far it has come, UTC.';
COMMENT ON COLUMN tradetape.replay_runs.finished_at IS 'When it ended, UTC; null while it runs, and when it was killed.';
COMMENT ON COLUMN tradetape.replay_runs.outcome IS 'RUNNING; DONE; BAD_DATA: all was read, some of it could not be replayed or differs; INTERRUPTED or FAILED: it can be resumed.';
COMMENT ON COLUMN tradetape.replay_runs.target IS 'What it was replayed into, as given to --into.';
COMMENT ON COLUMN tradetape.replay_runs.range_start IS 'Events from this event_time on, UTC; null from the tape''s beginning.';
COMMENT ON COLUMN tradetape.replay_runs.range_end IS 'Events before this event_time, UTC; null up to the tape''s end.';
COMMENT ON COLUMN tradetape.replay_runs.topics IS 'The topics that are read.';
COMMENT ON COLUMN tradetape.replay_runs.plan IS 'The whole request, and of each partition the offsets between which it is read, fixed at the start.';
COMMENT ON COLUMN tradetape.replay_runs.progress IS 'The next offset of each partition, or the last place in the order of time.';
COMMENT ON COLUMN tradetape.replay_runs.counts IS 'What was read, replayed, refused, by name.';
CREATE INDEX replay_runs_started ON tradetape.replay_runs (started_at);
