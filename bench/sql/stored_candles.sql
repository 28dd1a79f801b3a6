SELECT count(*) FROM tradetape.candles
