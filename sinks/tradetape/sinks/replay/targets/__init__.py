"""What a replay writes to: each takes records and has them safe when `write` returns."""
