"""Events to rows, each exactly once: rows and offsets commit together, behind a fence (I6)."""
