"""PostgreSQL: a bounded pool of connections, and statements of one round trip each."""
