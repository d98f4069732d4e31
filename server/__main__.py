"""The process of `tasks-api` and of `python -m server`."""

import gc

gc.disable()  # until the application has started: imports make next to no garbage

from server.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
