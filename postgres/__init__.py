"""PostgreSQL: connections, and one round trip a statement."""
