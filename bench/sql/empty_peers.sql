-- Each round begins with empty tables and nothing of the last one left to be written.
TRUNCATE tradetape.indicator_updates, tradetape.sink_offsets, bench.quixstreams, bench.faust
