"""The demo: real candles through the whole tape, and proof that none of them was lost."""
