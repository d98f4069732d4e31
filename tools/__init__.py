"""Tools for those who change the service: fuzzing, mutation of the contract, audit."""
