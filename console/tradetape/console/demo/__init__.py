"""The demo: real candles through the whole tape to trades and their profit, and proof that nothing was lost."""
