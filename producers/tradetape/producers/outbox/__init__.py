"""The outbox: what may not be lost waits on this machine's disk until Kafka has acknowledged it (I4)."""
