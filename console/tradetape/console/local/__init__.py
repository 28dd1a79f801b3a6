"""A Kafka, a PostgreSQL and a Redis of one's own as plain processes: no Docker, no Java to install, no root."""
