"""The contract, and what turns it into a running application."""

import warnings

# Connexion imports Starlette's test client, which nothing here uses.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient` is deprecated")
