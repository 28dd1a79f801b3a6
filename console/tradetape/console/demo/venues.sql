-- The venues in a table of the history.
SELECT DISTINCT venue FROM tradetape.{table}
