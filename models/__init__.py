"""Tables, queries and transactions on PostgreSQL."""
