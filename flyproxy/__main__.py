"""`python -m flyproxy` is the `flyproxy` command."""

from flyproxy.cli.main import main

if __name__ == "__main__":
    main()
