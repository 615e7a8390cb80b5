"""`python -m generative.render` under its former name."""

from runpy import run_module

if __name__ == "__main__":
    run_module("generative.render", run_name="__main__", alter_sys=True)
