"""`python -m generative.plot_training_csv` under its former name."""

from runpy import run_module

if __name__ == "__main__":
    run_module("generative.plot_training_csv", run_name="__main__", alter_sys=True)
