SELECT count(*) FROM tradetape.indicator_updates
