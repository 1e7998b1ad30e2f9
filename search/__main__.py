"""`python -m search`: the command `lps-search`, for launchers that start modules."""

from search.cli import main

if __name__ == "__main__":
    main()
