"""The contract, and what turns it into a running application."""

import warnings

# Connexion imports Starlette's test client, which speaks of its own future; nothing here uses it.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient` is deprecated")
