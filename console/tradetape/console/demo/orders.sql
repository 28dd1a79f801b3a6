-- What the paper executor says of the orders of some trades.
SELECT trade_id, leg_index, fills, is_done FROM tradetape.paper_orders WHERE trade_id = ANY(%(trade_ids)s)
