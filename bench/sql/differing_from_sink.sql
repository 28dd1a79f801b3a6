-- Rows that the sink and a peer do not have in common, in any column.
SELECT (SELECT count(*) FROM (TABLE tradetape.indicator_updates EXCEPT TABLE {table}) AS ours)
     + (SELECT count(*) FROM (TABLE {table} EXCEPT TABLE tradetape.indicator_updates) AS theirs)
