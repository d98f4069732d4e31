"""PostgreSQL: a bounded pool of connections, and statements that each take one round trip."""
