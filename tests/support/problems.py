"""Words of problems that tests of more than one subject meet."""

NOT_FOUND = (404, "path_not_found", "There is nothing at this path. The documentation is at /docs.")
UNAVAILABLE = "The database cannot be reached or is too busy. Try again."
READ_ONLY = "The database accepts no writes now. Try again."
DATE_RULE = "must be an RFC 3339 date-time in the years 1 to 9999 (UTC)"
