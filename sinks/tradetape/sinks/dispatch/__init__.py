"""Dispatch: approved trades to whoever carries them out, each order handed over once at most unless the far side tells repeats."""
