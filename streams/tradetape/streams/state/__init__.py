"""Current state in Redis: small hashes that expire by event time, and never go back in time (I2, I3)."""
