"""`python -m generative.train_gen_model` under its former name."""

from runpy import run_module

if __name__ == "__main__":
    run_module("generative.train_gen_model", run_name="__main__", alter_sys=True)
