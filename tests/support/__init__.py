"""What the tests share: clients, servers, and the real parts that they talk to."""
