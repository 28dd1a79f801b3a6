"""Positions: trades, dispatches and fills in, closed trades with their result out."""
