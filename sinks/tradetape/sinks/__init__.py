"""Where events come to rest: durable history in PostgreSQL."""
