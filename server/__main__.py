"""The process of `tasks-api` and of `python -m server`."""

import gc

gc.disable()  # until the application has started; next to nothing of what an import makes is garbage

from server.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
