"""What Schemathesis cannot make up by itself; `schemathesis.toml` names this module."""

import schemathesis
from hypothesis import strategies

# For headers Schemathesis makes letters and digits only, of which no entity tag is made.
schemathesis.openapi.format("if-match", strategies.sampled_from(["*", '"1"', '"1", "2"', 'W/"1"', '"x"', '""']))
schemathesis.openapi.format("if-none-match", strategies.sampled_from(['"x"', '""', 'W/"99", "98"', '"1"', "*"]))
