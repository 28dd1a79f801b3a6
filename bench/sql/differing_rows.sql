-- Rows that the sink and the bare loop do not have in common, in any column.
SELECT (SELECT count(*) FROM (TABLE tradetape.indicator_updates EXCEPT TABLE bench.bare) AS ours)
     + (SELECT count(*) FROM (TABLE bench.bare EXCEPT TABLE tradetape.indicator_updates) AS theirs)
