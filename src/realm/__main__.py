"""Run the command line: python -m realm."""

from realm.cli.main import run

if __name__ == "__main__":
    run()
