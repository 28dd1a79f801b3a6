"""Replay: a stretch of the tape once more, into the history, current state, other topics or lines; never into a dispatch."""
