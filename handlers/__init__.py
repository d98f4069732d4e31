"""One small function for each operationId of the contract."""
